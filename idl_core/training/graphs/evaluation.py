"""Evaluation by CUDA graphs: one launch a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idl_core.equilibrium import collected
from idl_core.training.callbacks import Metrics
from idl_core.training.components import TrainingComponents
from idl_core.training.evaluation import (
    Batches,
    Precision,
    device_of,
    evaluate,
    evaluating,
    forward,
)
from idl_core.training.graphs.cuda import Graphs
from idl_core.training.graphs.recording import Recording
from idl_core.training.tasks import Measure

# What a replay may measure beside an eager run, as a share: kernels may add in another order.
DIFFERENCE = 1e-2


class CapturedEvaluation:
    """Evaluates a split by replays of the graph of one batch; a smaller last one eagerly.

    Args:
        say: called with one line where it goes on eagerly for good.
    """

    def __init__(
        self,
        components: TrainingComponents,
        split: Batches,
        graphs: Graphs,
        batch_size: int,
        precision: Precision,
        say: Callable[[str], None],
    ) -> None:
        self._model, self._task, self._split = components.model, components.task, split
        self._graphs, self._precision, self._say = graphs, precision, say
        self._size = min(batch_size, len(split))
        self._index = torch.arange(self._size, device=device_of(self._model))
        self._recording: Recording | None = None
        self._given_up = False

    @torch.no_grad()
    def run(self) -> Metrics:
        """The task's metrics over every sample of the split, as `evaluate` has them."""
        if not self._given_up and self._recording is None and self._size:
            self._recording = self._record()
        if self._recording is None:
            return evaluate(self._model, self._split, self._task, self._size, self._precision)
        measures: list[Measure] = []
        numbers = torch.arange(len(self._split), device=self._index.device)
        with evaluating(self._model):
            for index in numbers.split(self._size):
                if len(index) == self._size:
                    self._index.copy_(index)
                    measures += self._recording.replay()
                else:
                    measures += self._measure(index)
        return self._task.metrics(self._task.sums(measures))

    def _measure(self, index: Tensor) -> list[Measure]:
        inputs, targets = self._split.batch(index)
        outputs = forward(self._model, inputs, self._precision)
        return [self._task.measure(outputs, targets, self._task.loss(outputs, targets))]

    def _record(self) -> Recording | None:
        """The graph of a batch, whose first replay is compared with an eager run."""
        recording = Recording(lambda: self._measure(self._index), self._graphs, self._model, 1)
        try:
            with evaluating(self._model), collected():
                self._graphs.warm_up(recording.work)
                recording.work()
                expected = recording.measures()
                recording.capture()
                found = recording.replay()
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n")[0].split())
            why = f"it cannot be captured in a CUDA graph: {reason}"
        else:
            if _alike(found, expected):
                return recording
            why = "a replay of its CUDA graph measures something else"
        self._given_up = True
        self._say(f"evaluation runs one operation at a time: {why}")
        return None


def _alike(found: list[Measure], expected: list[Measure]) -> bool:
    pairs = [
        (one.double(), other.double())
        for (_, parts), (_, others) in zip(found, expected, strict=True)
        for one, other in zip(parts, others, strict=True)
    ]
    return all(
        torch.allclose(one, other, rtol=DIFFERENCE, atol=1e-6, equal_nan=True)
        for one, other in pairs
    )
