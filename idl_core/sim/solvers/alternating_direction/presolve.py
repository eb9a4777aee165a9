"""A block [A B] or [C D] of rows, solved with columns that carry no data taken out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from idl_core.sim.solvers.alternating_direction.factors import Factors
from idl_core.sim.solvers.alternating_direction.loop import (
    ADMMSettings,
    OnCheck,
    RowAnswers,
    solve_rows,
)
from idl_core.sim.solvers.problem.gram import Gram
from idl_core.sim.solvers.problem.penalty import Penalty
from idl_core.sim.solvers.problem.row_problem import RowProblem


@dataclass
class Presolve:
    """The columns of M that an answer can use, and what all rows on them share.

    A column of zeros (a pixel that is constantly black, a unit that never fires) gets weight zero:
    no penalty prefers another. With κ = 0 the block a has weight zero too.

    Args:
        gram: MᵀM, all D columns.
        states: n, leading columns; the ball binds them, if there is one.
        kappa: radius κ, or None for no ball.
        penalty: weights of the penalties.
    """

    gram: Gram
    states: int
    kappa: float | None
    penalty: Penalty

    def __post_init__(self) -> None:
        self.width = self.gram.size
        alive = self.gram.diagonal() > 0
        if self.kappa == 0:
            alive[: self.states] = False
        self.columns = alive.nonzero()[:, 0]
        if not bool(alive.all()):
            self.gram = self.gram.select(self.columns)
        self.ball = 0 if self.kappa is None else int(alive[: self.states].sum())
        self.factors = Factors(self.gram, self.ball, self.penalty.l2)

    def solve(
        self, h: Tensor, zz: Tensor, settings: ADMMSettings, on_check: OnCheck | None = None
    ) -> RowAnswers:
        """Answers (k, D) from h = Mᵀz (k, D) and zz = ‖z‖² (k,) of each row."""
        if not len(self.columns):
            zero = torch.zeros_like(zz)
            return RowAnswers(torch.zeros_like(h), 0.5 * zz, zero, zero.long())
        kappa = 0.0 if self.kappa is None else self.kappa
        problem = RowProblem(
            self.gram,
            h[:, self.columns].contiguous(),
            zz,
            self.factors.diagonal.sqrt(),
            self.ball,
            kappa,
            self.penalty.l1,
            self.penalty.l2,
        )
        answers = solve_rows(problem, settings, on_check, self.factors)
        full = h.new_zeros(len(h), self.width)
        full[:, self.columns] = answers.v
        answers.v = full
        return answers
