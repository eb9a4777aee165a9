"""What a model is trained for: its loss, and metrics computed exactly over any number of batches.

A task takes a small *measure* of every batch, and adds measures up into *sums*, so that the metrics
of a split do not depend on how it was cut into batches (an average of batch averages would), and so
that workers can add theirs. The measure is taken every step and is as cheap as can be; the rest
waits until someone asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

# Of one batch: how many samples (or tokens) it counts for, and tensors on the model's device.
Measure = tuple[int, tuple[Tensor, ...]]


class Task(Protocol):
    """A loss, and the metrics that are reported with it."""

    name: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, differentiable, a scalar."""

    def measure(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> Measure:
        """What the metrics need of a batch; `loss` is what `loss()` returned for it."""

    def sums(self, measures: Sequence[Measure]) -> Tensor:
        """Measures added up, float64; sums of several lists can be added."""

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """The metrics that sums over any number of batches amount to."""


class Classification:
    """Class scores (b, q) against class numbers (b,): cross-entropy and accuracy."""

    name: ClassVar[str] = "classification"
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    def measure(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> Measure:
        return len(targets), (loss.detach(), (outputs.argmax(-1) == targets).count_nonzero())

    def sums(self, measures: Sequence[Measure]) -> Tensor:
        losses, counts = _losses_and_counts(measures)
        correct = torch.stack([parts[1] for _, parts in measures]).sum()
        return torch.stack((losses @ counts, correct.double(), counts.sum()))

    def metrics(self, sums: Tensor) -> dict[str, float]:
        loss, correct, count = sums.tolist()
        return {"loss": loss / count, "accuracy": correct / count}


@dataclass(frozen=True, eq=False)
class Regression:
    """Values (b, q) or (b,) against values of that shape: mean squared error and its relatives.

    `loss` is the mean squared error of the values as they are trained on, the other metrics are in
    the units of `center + scale * values`, one center and scale for all outputs or (q,). `r2` and
    `mape` are those of scikit-learn: r2 is averaged over the q outputs, a constant output counts 1
    where it is met exactly and 0 where not, and `mape` is a fraction, not a percentage.
    """

    center: float | Tensor = 0.0
    scale: float | Tensor = 1.0

    name: ClassVar[str] = "regression"
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "mse", "mae", "mape", "r2")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # Reshaped, as (b,) against (b, 1) would broadcast to (b, b) and train on nonsense.
        return functional.mse_loss(outputs, targets.reshape(outputs.shape))

    def measure(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> Measure:
        outputs = outputs.detach().reshape(len(outputs), -1).double() * self.scale
        # About the center, without which squares of what is far from zero swallow their spread.
        targets = targets.reshape(outputs.shape).double() * self.scale
        error = outputs - targets
        smallest = torch.finfo(torch.float64).eps  # as scikit-learn: a target of 0 divides by this
        sums = torch.stack(
            (
                error.square().sum(0),
                error.abs().sum(0),
                (error.abs() / (targets + self.center).abs().clamp(min=smallest)).sum(0),
                targets.sum(0),
                targets.square().sum(0),
                torch.full_like(targets[0], len(targets)),
            )
        )
        return len(targets), (sums,)

    def sums(self, measures: Sequence[Measure]) -> Tensor:
        return torch.stack([parts[0] for _, parts in measures]).sum(0)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        squared, absolute, relative, total, total_squared, count = sums.unbind()
        spread = (total_squared - total.square() / count).clamp(min=0)
        # Rounding leaves a constant target a spread of about this instead of 0.
        varies = spread > 1e-14 * total_squared
        exact = (squared == 0).double()
        r2 = torch.where(varies, 1 - squared / spread.where(varies, 1.0), exact)
        mse = squared / count
        return {
            "loss": (mse / self.scale**2).mean().item(),
            "mse": mse.mean().item(),
            "mae": (absolute / count).mean().item(),
            "mape": (relative / count).mean().item(),
            "r2": r2.mean().item(),
        }


@dataclass(frozen=True)
class Language:
    """Token scores (b, T, v) against token numbers (b, T): cross-entropy in nats a token.

    `bits_per_char` counts characters of the text, of which a token has `chars_per_token`.
    """

    chars_per_token: float = 1.0

    name: ClassVar[str] = "language"
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "bits_per_char")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def measure(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> Measure:
        return targets.numel(), (loss.detach(),)

    def sums(self, measures: Sequence[Measure]) -> Tensor:
        losses, counts = _losses_and_counts(measures)
        return torch.stack((losses @ counts, counts.sum()))

    def metrics(self, sums: Tensor) -> dict[str, float]:
        total, count = sums.tolist()
        loss = total / count
        # A diverging model's loss overflows exp; infinity says the same without stopping the run.
        perplexity = math.exp(loss) if loss < 700 else math.inf
        bits = loss / math.log(2) / self.chars_per_token
        return {"loss": loss, "perplexity": perplexity, "bits_per_char": bits}


TASKS: dict[str, Task] = {task.name: task for task in (Classification(), Regression(), Language())}

# Every other metric is better when it is smaller.
HIGHER_IS_BETTER = frozenset({"accuracy", "r2"})


def _losses_and_counts(measures: Sequence[Measure]) -> tuple[Tensor, Tensor]:
    losses = torch.stack([parts[0] for _, parts in measures]).double()
    return losses, losses.new_tensor([count for count, _ in measures])
