"""The objects of a training, built from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from idl_cli.config.build_data import build_dataset, build_task
from idl_cli.config.build_model import build_model, try_once
from idl_cli.config.build_training import build_optimizer
from idl_cli.config.train_config import TrainConfig
from idl_cli.jobs.training.init_from import initial_checkpoint
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
) -> ConfiguredTraining:
    """The components on their device, the model with weights drawn from the seed.

    Args:
        progress: takes a data set's reports of downloading and decoding.
        trained: the checkpoint whose normalisation the training goes on behind; None: that of
            `model.init_from`, if any.

    Raises: InputError.
    """
    dataset = build_dataset(config.data, config.seed, progress)
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
    optimizer = build_optimizer(config.optimizer, model.parameters())
    if getattr(config.model, "kernel", "auto") in ("numba", "triton"):
        try_once(model, dataset)
    return ConfiguredTraining(config, dataset, model, task, optimizer)
