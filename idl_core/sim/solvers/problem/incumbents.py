"""The best answer and the best lower bound known of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.solvers.problem.row_problem import RowProblem


class Incumbents:
    """Keeps, for k rows, the best feasible answer seen and the best lower bound seen.

    The two need not come from the same iteration: any answer and any dual point make a gap.

    Attributes:
        v: (k, D) answers.
        objective: (k,) their objectives, or what they can be at most for all that rounding hides.
        bound: (k,) lower bounds on the optimum.
    """

    def __init__(self, problem: RowProblem) -> None:
        self.v = torch.zeros_like(problem.h)
        self.objective = 0.5 * problem.zz  # of w = 0, which is feasible
        self.bound = torch.zeros_like(problem.zz)  # every term of the objective is at least 0
        self.problem = problem

    def consider(self, rows: Tensor, v: Tensor, Gv: Tensor) -> Tensor:
        """Take the feasible answers v of some rows where they are better; returns objectives."""
        part = self.problem.rows(rows)
        objective = part.objective(v, Gv) + part.errors(v)[1]
        better = objective < self.objective[rows]
        chosen = rows[better]
        self.v[chosen] = v[better]
        self.objective[chosen] = objective[better]
        return objective

    def certify(self, rows: Tensor, w: Tensor, Gw: Tensor) -> None:
        """Improve the lower bounds of some rows with the residuals of the points w."""
        part = self.problem.rows(rows)
        bound = part.dual_bound(w, part.h - Gw, self.objective[rows], self.v[rows])
        self.bound[rows] = torch.maximum(self.bound[rows], bound.nan_to_num(nan=-torch.inf))

    def gap(self) -> Tensor:
        """(k,) objective minus bound, rounding of their evaluation included."""
        return (self.objective - self.bound).clamp(min=0) + self.problem.rounding()

    def relative_gap(self) -> Tensor:
        """(k,) the gap over max(objective, 1e-6 · ½‖z‖²); 0 for a row z = 0."""
        scale = self.problem.scale(self.objective)
        return torch.where(scale > 0, self.gap() / scale, 0.0)
