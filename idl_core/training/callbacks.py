"""How a training loop tells the outside world what happens: it prints nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Metrics = dict[str, float]


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training data that are complete.
        batch: batches done of the pass under way.
        samples: training samples seen.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    samples: int = 0

    @property
    def pass_number(self) -> int:
        """Number, from 1, of the pass that the last step belonged to."""
        return self.epoch if self.batch == 0 and self.epoch else self.epoch + 1


@dataclass(frozen=True)
class Plan:
    """How far a training goes: known before its first step."""

    total_steps: int
    steps_per_epoch: int
    first_step: int
    batch_size: int


class Callback:
    """Told of events; every method may be left out. None of them is called every step."""

    def on_start(self, plan: Plan) -> None:
        """Before the first step."""

    def on_tick(self, progress: Progress) -> None:
        """A few times a second, for a progress display. Nothing is known but the counters."""

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        """Every `log_every` steps: training metrics since the last, `lr`, what `probe` says."""

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        """After a split was evaluated; `best`: the monitored metric was never better."""

    def on_save(self, progress: Progress) -> None:
        """After a checkpoint was written."""

    def on_problem(self, problem: str) -> None:
        """Something went wrong that training survives, in one line (a checkpoint not written)."""


class Callbacks(Callback):
    """Several callbacks as one, told in order."""

    def __init__(self, members: Sequence[Callback]) -> None:
        self.members = tuple(members)

    def on_start(self, plan: Plan) -> None:
        for member in self.members:
            member.on_start(plan)

    def on_tick(self, progress: Progress) -> None:
        for member in self.members:
            member.on_tick(progress)

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        for member in self.members:
            member.on_log(progress, metrics)

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        for member in self.members:
            member.on_evaluation(progress, split, metrics, best)

    def on_save(self, progress: Progress) -> None:
        for member in self.members:
            member.on_save(progress)

    def on_problem(self, problem: str) -> None:
        for member in self.members:
            member.on_problem(problem)
