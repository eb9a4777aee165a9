"""Solves within a CUDA graph: what they came to is looked at after each replay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from idl_core.equilibrium.late_warnings import Warn, collected, warn_when_copied
from idl_core.equilibrium.solution import LastSolution, SolveStats


class CapturedSolves:
    """The solves of one captured graph.

    What captures a graph calls `worst` at its end and `after_replay` after each replay: no solve
    that stops short of its tolerance is passed over for being in a graph, and a model's
    `last_solution` is of the last replay.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._running: list[tuple[Tensor, Warn]] = []
        self._solves: list[tuple[Tensor, Warn]] = []
        self._reports: list[tuple[nn.Module, LastSolution]] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """To be captured within; what is run within is not warned of."""
        with collected() as self._running:
            yield
        self._running = []

    def worst(self, repeats: int) -> None:
        """At the end of what is captured: combine the solves of its `repeats` like parts, the worst
        of each sample's."""
        each, rest = divmod(len(self._running), repeats)
        if rest:  # not alike: each on its own
            each, repeats = len(self._running), 1
        self._solves = []
        for first in range(each):
            numbers = [tensor for tensor, _ in self._running[first::each]]
            if repeats > 1:
                numbers = [torch.stack(SolveStats(*torch.stack(numbers, 1)).worst_step())]
            self._solves.append((numbers[0], self._running[first][1]))
        self._reports = [
            (module, report)
            for module in self._model.modules()
            if isinstance(report := vars(module).get("last_solution"), LastSolution)
        ]

    def after_replay(self) -> None:
        """Have warned, once it is known, what stopped short; the model's reports are this one's."""
        for module, report in self._reports:
            module.last_solution = report  # type: ignore[assignment]
        for numbers, warn in self._solves:
            warn_when_copied(numbers, warn)
