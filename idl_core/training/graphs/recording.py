"""A function that measures, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from idl_core.equilibrium import CapturedSolves
from idl_core.training.graphs.cuda import Graphs, Work
from idl_core.training.tasks import Measure


class Recording:
    """What a function of tensors that stay where they are measures, captured and replayed.

    Args:
        run: returns measures of the same number and shapes each time.
        repeats: how many times `run` does the same on other data.
    """

    def __init__(
        self, run: Callable[[], list[Measure]], graphs: Graphs, model: nn.Module, repeats: int
    ) -> None:
        self._run, self._graphs, self._repeats = run, graphs, repeats
        # Of each measure: what it counts, and its tensors, those of all stacked.
        self._counts: list[int] = []
        self._parts: list[Tensor] = []
        self._solves = CapturedSolves(model)
        self._replay: Work | None = None

    def work(self) -> None:
        """Run it: what is captured. The first run makes the tensors that the measures go to."""
        measures = self._run()
        self._counts = [count for count, _ in measures]
        rows = [parts for _, parts in measures]
        parts = [torch.stack(parts) for parts in zip(*rows, strict=True)]
        if not self._parts:
            self._parts = [torch.empty_like(part) for part in parts]
        for kept, part in zip(self._parts, parts, strict=True):
            kept.copy_(part)
        self._solves.worst(self._repeats)

    def capture(self) -> None:
        """Record `work`, which has run before."""
        with self._solves.collected():
            self._replay = self._graphs.capture(self.work)

    def replay(self) -> list[Measure]:
        """Run it once more."""
        assert self._replay is not None
        self._replay()
        self._solves.after_replay()
        return self.measures()

    def measures(self) -> list[Measure]:
        """Of the last run. Copies: the next writes where this one did."""
        rows = zip(*(part.clone().unbind() for part in self._parts), strict=True)
        return list(zip(self._counts, rows, strict=True))
