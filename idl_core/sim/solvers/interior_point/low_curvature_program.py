"""Rows in the few directions that the data leave free: w = w_s + Nt (`LowCurvatureSubspace`).

    min over t:  ½tᵀΛt - gᵀt + ‖w_s + Nt‖₁   subject to ‖a‖₁ ≤ κ

needs one factor of Λ + Nᵀ diag(E)⁻¹ N, a d x d matrix, a row and step. The pinned part follows the
multipliers, w_s = V (VᵀKV)⁻¹ Vᵀ (h - λy), after which (h - Kw)/λ = y along V too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.low_curvature_subspace import LowCurvatureSubspace
from idl_core.sim.solvers.interior_point.mehrotra import (
    RESIDUAL,
    CholeskySolve,
    Newton,
    Point,
    Program,
)
from idl_core.sim.solvers.problem.row_problem import RowProblem

_STALE = 0.5  # of the complementarity, what an old w_s may cost
_RIDGES = [10.0 ** (half / 2) for half in range(25)]


@dataclass
class LowCurvatureProgram(Program):
    """Everything divided by λ.

    Attributes:
        g: (k, d), Nᵀh.
        y: (k, D), the multipliers with which w_s was made.
        pinned: (k, D), w_s.
        constant: (k,) what of the objective does not depend on t.
    """

    rows: RowProblem
    space: LowCurvatureSubspace
    g: Tensor
    y: Tensor
    pinned: Tensor
    constant: Tensor

    @classmethod
    def of(cls, rows: RowProblem, space: LowCurvatureSubspace) -> LowCurvatureProgram:
        """With w_s as if there were no penalty."""
        y = torch.zeros_like(rows.h)
        return cls(rows, space, rows.h @ space.N / rows.l1, y, *_pinned(rows, space, y))

    def select(self, keep: Tensor) -> LowCurvatureProgram:
        parts = {name: getattr(self, name)[keep] for name in ("g", "y", "pinned", "constant")}
        return replace(self, rows=self.rows.rows(keep), **parts)

    def judge(self, point: Point, relative_gap: float) -> tuple[Program, Point, Tensor]:
        left = self.space.along_strong(self.rows.l1 * (point.y - self.y))
        stale = self.space.along_cost(left) / self.rows.l1
        moves = stale > _STALE * point.products().sum(1)
        program = self._following(torch.where(moves[:, None], point.y, self.y), moves)
        curved = (point.t * (0.5 * program.curve(point.t) - program.g)).sum(1)
        gap, scale = program.gap(point, program.constant + curved)
        # An old w_s adds to the gap, and so does ½sᵀKs where w = p - n + s, and a slope that is not
        # zero: what it may gain within reach, a in the ball and b as large as it is, and what it
        # takes to scale the dual point until its correlations with b are at most 1.
        slope, free, norm = program.slope(point), self.space.free, torch.linalg.vector_norm
        s, slope_b = program.unsplit(point), norm(slope[:, free:], dim=1)
        bent = (self.rows.gram.apply(s) + self.rows.l2 * s) / self.rows.l1
        gap = gap + stale * ~moves + 0.5 * (s * bent).sum(1)
        gap = gap + self.rows.kappa * norm(slope[:, :free], dim=1)
        gap = gap + norm(point.p - point.n, dim=1) * slope_b + scale * slope_b**2
        outside = self.outside(point).abs()[:, 0]
        return program, point, (gap > relative_gap * scale) | (outside > RESIDUAL)

    def _following(self, y: Tensor, moves: Tensor) -> LowCurvatureProgram:
        if not bool(moves.any()):
            return self
        pinned, constant = _pinned(self.rows, self.space, y)
        return replace(self, y=y, pinned=pinned, constant=constant)

    def newton(self, point: Point) -> Newton:
        return _LowCurvatureNewton(self, point)

    def answer(self, point: Point) -> Tensor:
        pinned, _ = _pinned(self.rows, self.space, point.y)
        return pinned + point.t @ self.space.N.T

    def curve(self, t: Tensor) -> Tensor:
        """Λ t (k, d), for t (k, d)."""
        return t @ self.space.curvature / self.rows.l1

    def slope(self, point: Point) -> Tensor:
        """g - Λt - Nᵀy (k, d)."""
        return self.g - self.curve(point.t) - point.y @ self.space.N

    def unsplit(self, point: Point) -> Tensor:
        """w - (p - n), (k, D)."""
        return self.pinned + point.t @ self.space.N.T - (point.p - point.n)

    def start(self) -> tuple[Point, Tensor]:
        """Least squares with the least of some ridges on a that brings it within reach of the
        ball; and for which rows (k,) any does."""
        least_squares = self.space.least_squares(self.rows.h, self.pinned)

        def at_ridge(ridge: float) -> tuple[Tensor, Tensor]:
            t = least_squares(ridge)
            return t, self.pinned + t @ self.space.N.T

        t, w, reached = self.within_reach(at_ridge, _RIDGES)
        y = ((self.g - self.curve(t)) @ self.space.N.T) * self.ball
        return self.split(t, w, y), reached


class _LowCurvatureNewton(Newton):
    def __init__(self, program: LowCurvatureProgram, at: Point) -> None:
        super().__init__(program, at)
        self.N = program.space.N
        self.slope, self.unsplit = program.slope(at), program.unsplit(at)
        self.outside = program.outside(at)
        matrix = program.space.products.lower(1 / self.E)
        self.solve = CholeskySolve(matrix.add_(program.space.curvature / program.rows.l1))
        if self.has_ball:
            self.v = (self.F / self.E) @ self.N
            self.Kv = self.solve(self.v)
            stiff = ((self.E - self.F**2 / self.E) * self.ball).sum(1, keepdim=True)
            self.down = (self.v * self.Kv).sum(1, keepdim=True) + stiff + at.slack / at.theta

    def reduced(self, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        split = self.unsplit - q
        dt = self.solve(self.slope - (split / self.E) @ self.N)
        d_theta = torch.zeros_like(r)
        if self.has_ball:
            beta = self.outside - r - (self.F / self.E * split).sum(1, keepdim=True)
            d_theta = ((self.v * dt).sum(1, keepdim=True) - beta) / self.down
            dt = dt - self.Kv * d_theta
        return dt, (dt @ self.N.T + split + self.F * d_theta) / self.E, d_theta


def _pinned(rows: RowProblem, space: LowCurvatureSubspace, y: Tensor) -> tuple[Tensor, Tensor]:
    """w_s (k, D) for multipliers y, and what of the objective over λ (k,) does not depend on t."""
    along = space.along_strong(rows.h - rows.l1 * y)
    pinned = space.pinned(along)
    quadratic = space.along_cost(along) - (pinned * rows.h).sum(1)
    return pinned, (0.5 * rows.zz + quadratic) / rows.l1
