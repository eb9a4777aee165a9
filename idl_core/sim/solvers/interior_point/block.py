"""A block [A B] or [C D] of rows: presolve, interior-point method, pruning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.choice import SystemsChoice
from idl_core.sim.solvers.interior_point.solve import Limits, OnCheck, Watch, improve
from idl_core.sim.solvers.interior_point.unpenalised import solve_unpenalised
from idl_core.sim.solvers.problem.column_span import ColumnSpan
from idl_core.sim.solvers.problem.compressed_data import CompressedData, Targets
from idl_core.sim.solvers.problem.incumbents import Incumbents
from idl_core.sim.solvers.problem.penalty import Penalty
from idl_core.sim.solvers.problem.presolve import presolved
from idl_core.sim.solvers.problem.pruning import prune
from idl_core.sim.solvers.problem.row_problem import RowProblem


@dataclass
class RowAnswers:
    """What a solve of k rows returns.

    Attributes:
        v: (k, D) feasible answers.
        objective, gap: (k,).
        iterations: (k,) interior-point steps spent on each row.
        history: (iteration, worst relative gap, median relative gap) at each check.
    """

    v: Tensor
    objective: Tensor
    gap: Tensor
    iterations: Tensor
    history: list[tuple[int, float, float]] = field(default_factory=list)


class BlockSolver:
    """Solves rows with the same data, ball and penalties; what they share is made once.

    Args:
        data: M, all D columns.
        states: leading columns; the ball binds them, if there is one.
        kappa: radius κ, or None for no ball.
        penalty: weights of the penalties.
    """

    def __init__(
        self, data: CompressedData, states: int, kappa: float | None, penalty: Penalty
    ) -> None:
        self.data, self.states, self.kappa, self.penalty = data, states, kappa, penalty
        self.presolved, self.columns = presolved(data, states, kappa, penalty)
        self.ball = 0 if kappa is None else int((self.columns < states).sum())
        self.choice: SystemsChoice | None = None

    def solve(
        self, targets: Targets, limits: Limits, on_check: OnCheck | None = None
    ) -> RowAnswers:
        """Answers (k, D) for the targets of some rows."""
        kappa = 0.0 if self.kappa is None else self.kappa
        problem = RowProblem(
            self.presolved, targets, self.ball, kappa, self.penalty.l1, self.penalty.l2
        )
        best, watch = Incumbents(problem), Watch(on_check)
        every = torch.arange(problem.count, device=targets.rest.device)
        best.measure(every, best.v)
        watch.check(best, 0, limits)
        steps = torch.zeros_like(every)
        if len(self.columns):
            open_rows = every[best.relative_gap() > limits.gap_tol]
            steps[open_rows] = self._improve(best, open_rows, limits, watch)
            self._use_span(best, limits)
            prune(best, limits.gap_tol)
        v = best.v.new_zeros(problem.count, self.data.size)
        v[:, self.columns] = best.v
        return RowAnswers(v, best.objective, best.gap(), steps, watch.history)

    def _improve(self, best: Incumbents, rows: Tensor, limits: Limits, watch: Watch) -> Tensor:
        problem = best.problem
        if not (problem.l1 or problem.l2) and problem.ball < problem.data.size:
            return solve_unpenalised(best, rows, limits, watch)
        if self.choice is None:
            self.choice = SystemsChoice(problem)
        return improve(best, rows, self.choice, limits, watch)

    def _use_span(self, best: Incumbents, limits: Limits) -> None:
        """Judge rows that are open by what b's columns span: proofs beside a penalty that is hardly
        above rounding need it; it takes some time."""
        problem = best.problem
        (rows,) = (best.relative_gap() > limits.gap_tol).nonzero(as_tuple=True)
        if not len(rows) or problem.ball == problem.data.size or problem.l2:
            return
        if problem.span is None:
            columns = torch.arange(problem.data.size, device=rows.device)[problem.ball :]
            span = ColumnSpan.of_data(problem.data.factor, columns)
            best.problem = replace(problem, span=span)
        for points in (best.point, best.v):
            w = points[rows]
            best.certify(rows, w, best.problem.rows(rows).residual(w))
