"""What a solve tells: while it runs, and afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from idl_core.equilibrium.solution import ImplicitFunctionWarning

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class SolveProgress:
    """Where a solve stands.

    Attributes:
        block: "AB" or "CD".
        rows: number of rows of the block.
        done: rows whose solve has ended.
        iteration: iterations so far (epochs, for gradient descent).
        worst_gap: largest relative duality gap among the rows; nan for a solver without one.
    """

    block: str
    rows: int
    done: int
    iteration: int
    worst_gap: float


OnProgress = Callable[[SolveProgress], None]


@dataclass
class BlockReport:
    """The rows of [A B] or of [C D].

    Attributes:
        objective: (k,) objective of each row as returned: ½‖z - Mw‖² plus the penalties.
        gap: (k,) objective minus a lower bound on the optimum: each row is that close to optimal,
            or closer. None for a solver that proves nothing.
        relative_gap: (k,) gap over max(objective, 1e-6 · ½‖z‖²).
        iterations: (k,).
        seconds: of the block, with what it took to have its data.
        history: (iteration, worst relative gap, median relative gap) at each check.
    """

    objective: Rows
    gap: Rows | None
    relative_gap: Rows | None
    iterations: np.ndarray[Any, np.dtype[np.int64]]
    seconds: float
    history: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass
class SolveReport:
    """Outcome of a solve.

    Attributes:
        solver: its name.
        blocks: "AB" and "CD".
        notes: what the user should know, in sentences.
        shortfalls: those of them that say that the solve did not reach what was asked for.
    """

    solver: str
    blocks: dict[str, BlockReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shortfalls: list[str] = field(default_factory=list)

    def falls_short(self, note: str) -> None:
        """Note that the solve did not reach what was asked for."""
        self.notes.append(note)
        self.shortfalls.append(note)

    def warn_of_shortfalls(self) -> None:
        """Emit one `ImplicitFunctionWarning` with all of them; called as `solve` ends."""
        if self.shortfalls:
            warnings.warn(
                f"{self.solver} fell short: {'; '.join(self.shortfalls)}",
                ImplicitFunctionWarning,
                stacklevel=3,
            )

    @property
    def seconds(self) -> float:
        """Seconds of both blocks: of the whole solve."""
        return sum(block.seconds for block in self.blocks.values())

    @property
    def objective(self) -> float:
        """Sum of all rows' objectives."""
        return float(sum(block.objective.sum() for block in self.blocks.values()))

    @property
    def gap(self) -> float | None:
        """Sum of all rows' gaps: `objective` is at most this far above the optimum."""
        gaps = [block.gap for block in self.blocks.values()]
        return None if any(g is None for g in gaps) else float(sum(g.sum() for g in gaps))  # type: ignore[union-attr]

    @property
    def worst_relative_gap(self) -> float | None:
        """The largest relative gap of any row."""
        gaps = [block.relative_gap for block in self.blocks.values()]
        if any(g is None for g in gaps):
            return None
        return max((float(g.max()) for g in gaps if g is not None and g.size), default=0.0)

    def figures(self) -> dict[str, Any]:
        """Plain numbers for a summary, under its names."""
        return {
            "solver": self.solver,
            "objective": self.objective,
            "duality_gap": self.gap,
            "worst_relative_gap": self.worst_relative_gap,
            "solve_s": self.seconds,
        }
