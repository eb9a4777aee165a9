"""Setting up a training: data set, model, task, optimizer and schedule from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from idl_cli.config.build_data import build_dataset, build_task, say_notes
from idl_cli.config.build_model import build_model, try_once
from idl_cli.config.build_training import (
    build_optimizer,
    build_schedule,
    build_settings,
    with_learning_rate,
)
from idl_cli.config.train_config import TrainConfig
from idl_cli.jobs.training.init_from import initial_checkpoint, initial_run
from idl_cli.record.data_files import class_names_of
from idl_cli.record.fingerprint import check_fit
from idl_cli.record.normalisation import as_trained, targets_like_inputs
from idl_core.training import Checkpoint, Task, TrainingComponents
from idl_datasets import Dataset


@dataclass(frozen=True)
class TrainingSetup:
    """A training that is ready to begin: nothing of it is written yet.

    Attributes:
        components: what `fit` works on, on its device.
    """

    config: TrainConfig
    dataset: Dataset
    components: TrainingComponents

    @property
    def model(self) -> nn.Module:
        """The model to train."""
        return self.components.model

    @property
    def task(self) -> Task:
        """The task's loss and metrics."""
        return self.components.task


def set_up_training(
    config: TrainConfig,
    device: torch.device,
    progress: Callable[[str, int, int | None], None],
    trained: Checkpoint | None = None,
    say: Callable[[str], None] = lambda text: None,
    class_names: Sequence[str] | None = None,
) -> TrainingSetup:
    """Build everything on its device, the model with weights drawn from the seed.

    Args:
        progress: takes a data set's reports of downloading and decoding.
        trained: the checkpoint whose normalisation the training goes on behind; None: that of
            `model.init_from`, if any.
        class_names: of a model that has learnt already; None: the data's own.

    Returns: them with the configuration, in which the learning rate is now a number.
    Raises: InputError.
    """
    dataset = _dataset(config, progress, say, class_names)
    if getattr(config.model, "differences", False):
        dataset = targets_like_inputs(dataset)
    if trained := trained or initial_checkpoint(config.model):
        check_fit(dataset, trained)
        dataset = as_trained(dataset, trained, say)
    dataset = dataset.to(device)
    task = build_task(dataset, config.trainer.monitor)
    torch.manual_seed(config.seed)
    model = build_model(config.model, dataset)
    model = model.to(device, torch.float64 if config.trainer.precision == "64" else None)
    config = replace(config, optimizer=with_learning_rate(config.optimizer, model, say))
    if getattr(config.model, "kernel", "auto") in ("numba", "triton"):
        try_once(model, dataset)
    optimizer = build_optimizer(config.optimizer, model.parameters())
    train = dataset.train
    steps = build_settings(config.trainer, config.seed).total_steps(len(train))
    per_epoch = -(-len(train) // config.trainer.batch_size)
    schedule = build_schedule(config.scheduler, steps, per_epoch)
    components = TrainingComponents(model, task, optimizer, train, dataset.val, schedule)
    return TrainingSetup(config, dataset, components)


def _dataset(
    config: TrainConfig,
    progress: Callable[[str, int, int | None], None],
    say: Callable[[str], None],
    class_names: Sequence[str] | None,
) -> Dataset:
    """The data set, its labels counting the outputs of the model that the training starts from."""
    dataset = build_dataset(config.data, config.seed, progress, class_names=class_names)
    if class_names is None and (initial := initial_run(config.model)):
        names = class_names_of(initial) or dataset.class_names
        if set(names) != set(dataset.class_names):
            say(
                f"model.init_from={initial}: it was trained on the classes "
                f"{', '.join(names[:10])}; what its outputs stand for is learnt anew"
            )
        elif names != dataset.class_names:  # labels count the outputs that there are
            dataset = build_dataset(config.data, config.seed, progress, class_names=names)
    say_notes(dataset, say)
    return dataset
