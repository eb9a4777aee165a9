"""A model's metrics on a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from idl_core.training.callbacks import Metrics
from idl_core.training.distributed import Team
from idl_core.training.tasks import Measure, Task

Precision = Literal["32", "64", "bf16"]


class Batches(Protocol):
    """Samples that can be taken by number; they live on the device that trains."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the samples numbered in `index` (int64, on the device)."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Batches,
    task: Task,
    batch_size: int,
    precision: Precision = "32",
    team: Team | None = None,
) -> Metrics:
    """The task's metrics over every sample of `split`, each counted once, in evaluation mode.

    The metrics are exact for the split: they do not depend on `batch_size`, nor on how many
    processes of a `team` share the work.
    """
    team = team or Team()
    if len(split) == 0:
        raise ValueError("an empty split has no metrics")
    measures: list[Measure] = []
    for outputs, targets in _outputs(model, split, batch_size, precision, team):
        measures.append(task.measure(outputs, targets, task.loss(outputs, targets)))
    return task.metrics(team.total(task.sums(measures) if measures else None))


@torch.no_grad()
def predict(
    model: nn.Module, split: Batches, batch_size: int, precision: Precision = "32"
) -> Tensor:
    """The model's outputs on every sample of `split`, in order, in evaluation mode."""
    return torch.cat(
        [outputs for outputs, _ in _outputs(model, split, batch_size, precision, Team())]
    )


def _outputs(
    model: nn.Module, split: Batches, batch_size: int, precision: Precision, team: Team
) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and targets of our share of a split, batch by batch, in evaluation mode."""
    device = device_of(model)
    with evaluating(model):
        for first in range(0, len(split), batch_size):
            index = torch.arange(first, min(first + batch_size, len(split)), device=device)
            index = team.share(index)
            if len(index) == 0:
                continue
            inputs, targets = split.batch(index)
            yield forward(model, inputs, precision), targets


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def forward(model: nn.Module, inputs: Tensor, precision: Precision) -> Tensor:
    """The model's outputs: 32 and 64 in that type, bf16 by autocast and returned as float32."""
    if precision == "bf16":
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs: Tensor = model(inputs)
            return outputs.float()
    if precision == "64" and inputs.is_floating_point():
        inputs = inputs.double()
    outputs = model(inputs)
    return outputs


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
