"""The objects that a training works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from idl_core.training.evaluation import Batches
from idl_core.training.schedule import Schedule, constant
from idl_core.training.tasks import Task


@dataclass(frozen=True)
class TrainingComponents:
    """The objects that a training works on, all on one device.

    Attributes:
        model: trained in place.
        task: its loss and metrics.
        optimizer: of the model's parameters.
        train: the samples to learn from.
        val: the samples that decide which weights are best; None: the last weights are kept.
        schedule: finished steps -> factor on each parameter group's learning rate.
    """

    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    train: Batches
    val: Batches | None = None
    schedule: Schedule = field(default_factory=constant)
