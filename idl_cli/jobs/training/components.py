"""The objects of a training, built from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from idl_cli.config.build_data import build_dataset, build_task, say_notes
from idl_cli.config.build_model import build_model, try_once
from idl_cli.config.build_training import build_optimizer, with_learning_rate
from idl_cli.config.train_config import TrainConfig
from idl_cli.jobs.training.init_from import initial_checkpoint, initial_run
from idl_cli.record.data_files import class_names_of
from idl_cli.record.fingerprint import check_fit
from idl_cli.record.normalisation import as_trained, targets_like_inputs
from idl_core.training import Checkpoint, Task
from idl_datasets import Dataset


@dataclass
class ConfiguredTraining:
    """A training as its configuration describes it, built before anything is written."""

    config: TrainConfig
    dataset: Dataset
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer


def build_components(
    config: TrainConfig,
    device: torch.device,
    progress: Callable[[str, int, int | None], None],
    trained: Checkpoint | None = None,
    say: Callable[[str], None] = lambda text: None,
    class_names: Sequence[str] | None = None,
) -> ConfiguredTraining:
    """The components on their device, the model with weights drawn from the seed.

    Args:
        progress: takes a data set's reports of downloading and decoding.
        trained: the checkpoint whose normalisation the training goes on behind; None: that of
            `model.init_from`, if any.
        class_names: of a model that has learnt already; None: the data's own.

    Returns: them with the configuration, in which the learning rate is now a number.
    Raises: InputError.
    """
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
    optimizer = build_optimizer(config.optimizer, model.parameters())
    if getattr(config.model, "kernel", "auto") in ("numba", "triton"):
        try_once(model, dataset)
    return ConfiguredTraining(config, dataset, model, task, optimizer)
