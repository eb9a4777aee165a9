"""How training steps are run: a `Step` takes batches and trains on them, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from idl_core.training.callbacks import Progress
from idl_core.training.components import TrainingComponents
from idl_core.training.distributed import Team
from idl_core.training.evaluation import Precision, forward
from idl_core.training.rates import LearningRates
from idl_core.training.state import NonFiniteLoss
from idl_core.training.tasks import Measure


class StepResult(NamedTuple):
    """What steps leave behind.

    measures: the task's measures of this process's share of the batches, of those it had one of
    stopping: a process of the team was asked to stop
    """

    measures: list[Measure]
    stopping: bool


class Step(Protocol):
    """Trains on batches.

    Attributes:
        most: how many batches it takes at once with profit.
    """

    @property
    def most(self) -> int: ...

    def run(self, batches: Sequence[Tensor], progress: Progress, stop: bool) -> StepResult:
        """Train on the samples numbered in each of `batches` (int64, on the device), of the whole
        team.

        Args:
            progress: where the training stands before the first of them.
            stop: this process was asked to stop.

        Raises: NonFiniteLoss before the weights are changed, on a CPU.
        """


class EagerStep:
    """Runs a training step operation by operation: forward, loss, backward, clipping, update.

    Args:
        grad_clip: largest 2-norm of the gradient of all parameters together; None: no limit.
    """

    most = 1

    def __init__(
        self,
        components: TrainingComponents,
        rates: LearningRates,
        precision: Precision,
        grad_clip: float | None,
        team: Team,
    ) -> None:
        self.components, self.rates, self._team = components, rates, team
        self._precision, self._grad_clip = precision, grad_clip

    def run(self, batches: Sequence[Tensor], progress: Progress, stop: bool) -> StepResult:
        measures: list[Measure] = []
        for number, index in enumerate(batches):
            self.rates.use(progress.step + number)
            done = self.update(index, progress, stop)
            measures += done.measures
            stop = done.stopping
        return StepResult(measures, stop)

    def update(self, index: Tensor, progress: Progress, stop: bool) -> StepResult:
        """One step at the optimizer's present learning rates."""
        components, team = self.components, self._team
        model, task, optimizer = components.model, components.task, components.optimizer
        share = team.share(index)
        # A batch may have fewer samples than there are processes: one without any takes part with
        # a sample that counts nothing.
        inputs, targets = components.train.batch(share if len(share) else index[:1])
        outputs = forward(model, inputs, self._precision)
        loss = task.loss(outputs, targets)
        loss.backward()
        whole, stopping = team.synchronise(model.parameters(), loss, len(share) / len(index), stop)
        # Reading the loss on an accelerator would wait for it; there the report reads it.
        if whole.device.type == "cpu" and not math.isfinite(whole.item()):
            raise NonFiniteLoss(whole.item(), progress)
        if self._grad_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self._grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        measures = [task.measure(outputs, targets, loss)] if len(share) else []
        return StepResult(measures, stopping)
