"""One step of the optimizer on one batch."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn

from idl_core.training.callbacks import Progress
from idl_core.training.components import TrainingComponents
from idl_core.training.distributed import Team
from idl_core.training.evaluation import Precision, forward
from idl_core.training.state import NonFiniteLoss
from idl_core.training.tasks import Measure


class StepResult(NamedTuple):
    """What a step leaves behind.

    measures: the task's measure of this process's share of the batch, if it had one
    stopping: a process of the team was asked to stop
    """

    measures: list[Measure]
    stopping: bool


class EagerStep:
    """Runs a training step operation by operation: forward, loss, backward, clipping, update.

    Args:
        grad_clip: largest 2-norm of the gradient of all parameters together; None: no limit.
    """

    def __init__(
        self,
        components: TrainingComponents,
        precision: Precision,
        grad_clip: float | None,
        team: Team,
    ) -> None:
        self._components, self._team = components, team
        self._precision, self._grad_clip = precision, grad_clip

    def run(self, index: Tensor, progress: Progress, stop: bool) -> StepResult:
        """Train on the samples numbered in `index` (int64, on the device), of the whole team.

        Args:
            progress: where the training stands, for the message of a failure.
            stop: this process was asked to stop.

        Raises: NonFiniteLoss before the weights are changed, on a CPU.
        """
        components, team = self._components, self._team
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
