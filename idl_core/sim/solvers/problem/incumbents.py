"""The incumbent and the best dual bound of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.solvers.problem.row_problem import Residual, RowProblem


class Incumbents:
    """Keeps, for k rows, the best feasible answer seen and the best lower bound seen.

    The two need not come from the same iteration: any answer and any dual point make a gap.

    Attributes:
        v: (k, D) answers.
        objective: (k,) their objectives, or what they can be at most for all that rounding hides.
        bound: (k,) lower bounds on the optimum.
        point: (k, D) the points whose residuals gave the bounds.
    """

    def __init__(self, problem: RowProblem) -> None:
        zz = problem.zz
        self.v = zz.new_zeros(problem.count, problem.data.size)
        self.objective = 0.5 * zz  # of w = 0, which is feasible
        self.bound = torch.zeros_like(zz)  # every term of the objective is at least 0
        self.point = self.v.clone()
        self.problem = problem

    def measure(self, rows: Tensor, w: Tensor) -> Residual:
        """Take the points w of some rows as answers, where they are feasible and better, and for
        their dual bounds; returns their residuals."""
        part = self.problem.rows(rows)
        at = part.residual(w)
        self.consider(rows, w, at)
        self.certify(rows, w, at)
        return at

    def consider(self, rows: Tensor, v: Tensor, at: Residual) -> None:
        """Take the answers v of some rows where they are in the ball and better."""
        part = self.problem.rows(rows)
        objective = part.objective(v, at)
        better = objective < self.objective[rows]
        if part.ball:
            better &= v[:, : part.ball].abs().sum(1) <= part.kappa
        chosen = rows[better]
        self.v[chosen], self.objective[chosen] = v[better], objective[better]

    def certify(self, rows: Tensor, w: Tensor, at: Residual) -> None:
        """Improve the lower bounds of some rows with the residuals of the points w."""
        part = self.problem.rows(rows)
        bound = part.dual_bound(at, self.objective[rows], self.v[rows])
        better = bound > self.bound[rows]  # never for NaN
        chosen = rows[better]
        self.bound[chosen], self.point[chosen] = bound[better], w[better]

    def gap(self) -> Tensor:
        """(k,) objective minus bound, rounding of their evaluation included."""
        return (self.objective - self.bound).clamp(min=0) + self.problem.rounding()

    def relative_gap(self) -> Tensor:
        """(k,) the gap over max(objective, 1e-6 · ½‖z‖²); 0 for a row z = 0."""
        scale = self.problem.scale(self.objective)
        return torch.where(scale > 0, self.gap() / scale, 0.0)
