"""A primal-dual interior-point method for rows whose answer is free in few directions.

    min over t:  ½tᵀΛt - gᵀt + ‖w_s + Nt‖₁   subject to ‖a‖₁ ≤ κ,      (a, b) = w_s + Nt

for k rows at once: Mehrotra's predictor and corrector (SIAM J. Optim. 2, 1992), whose Newton steps
need one factor of a d x d matrix for each row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.newton_step import STAY, Newton, Point, Residuals
from idl_core.sim.solvers.row_problem import RowProblem
from idl_core.sim.solvers.weak_space import WeakSpace

_STALE = 0.5
_ITERATIONS = 30
_RESIDUAL = 1e-6
_RIDGES = [10.0 ** (half / 2) for half in range(25)]
# Of κ, what the starting point's a may have before the split. A little outside the ball is the
# better start: less of a ridge, and the split's own p and n are inside.
_REACH = 1.3
_TINY = 1e-300


@dataclass
class Program:
    """The problem of k rows, everything divided by λ.

    Attributes:
        space: N, Λ and the strong directions.
        rows: the rows' h, ‖z‖² and λ.
        g: (k, d), Nᵀh.
        curvature: (d, d), Λ.
        ball: (D,) 1 on the block a where a ball binds it, else 0.
        y: (k, D), the multipliers with which w_s was made.
        pinned: (k, D), w_s.
        constant: (k,) what of the objective does not depend on t.
    """

    space: WeakSpace
    rows: RowProblem
    g: Tensor
    curvature: Tensor
    ball: Tensor
    y: Tensor
    pinned: Tensor
    constant: Tensor

    @classmethod
    def of(cls, rows: RowProblem, space: WeakSpace) -> Program:
        """With w_s as if there were no penalty."""
        ball, y = torch.zeros_like(rows.lengths), torch.zeros_like(rows.h)
        ball[: rows.ball] = 1
        g, curvature = rows.h @ space.N / rows.l1, space.curvature / rows.l1
        return cls(space, rows, g, curvature, ball, y, *_pinned(rows, space, y))

    @property
    def N(self) -> Tensor:
        """(D, d)."""
        return self.space.N

    @property
    def kappa(self) -> float:
        """Radius of the ball."""
        return self.rows.kappa

    @property
    def has_ball(self) -> bool:
        """Whether any entry is bound."""
        return self.rows.ball > 0

    def select(self, keep: Tensor) -> Program:
        """Of some of the rows."""
        parts = {name: getattr(self, name)[keep] for name in ("g", "y", "pinned", "constant")}
        return replace(self, rows=self.rows.rows(keep), **parts)

    def solve(self, t: Tensor, relative_gap: float) -> tuple[Point, Tensor]:
        """Iterate from t until every row's complementarity is at most that share of its scale.

        Rows that are done leave the work, since further steps would run into rounding.

        Returns:
            The points, and the steps (k,) that each took.
        """
        answer = self._split(t)
        rows = torch.arange(len(t), device=t.device)
        steps = torch.zeros_like(rows)
        program, point = self, answer
        for _ in range(_ITERATIONS):
            program, stale = program._following(point)
            is_open = program._is_open(point, stale, relative_gap)
            if not bool(is_open.all()):
                answer.put(rows, point)
                program, point, rows = program.select(is_open), point.select(is_open), rows[is_open]
            if not len(rows):
                break
            steps[rows] += 1
            newton = Newton(program, point)
            mean = point.products().mean(1, keepdim=True)
            guess = newton.step(torch.zeros_like(mean), None)
            after = point.moved(guess, point.longest(guess).clamp(max=1.0)).products()
            share = after.mean(1, keepdim=True) / mean.clamp(min=_TINY)
            step = newton.step(share.clamp(0, 1) ** 3 * mean, guess)
            point = point.moved(step, (STAY * point.longest(step)).clamp(max=1.0))
        answer.put(rows, point)
        return answer, steps

    def _following(self, point: Point) -> tuple[Program, Tensor]:
        """The same with w_s of the point's multipliers, for rows in which that matters beside the
        complementarity; and what of the gap (k,) the others' old ones leave."""
        left = self.space.along_strong(self.rows.l1 * (point.y - self.y))
        stale = 0.5 * (left * left * self.space.inverse).sum(1) / self.rows.l1
        matters = stale > _STALE * point.products().sum(1)
        if not bool(matters.any()):
            return self, stale
        y = torch.where(matters[:, None], point.y, self.y)
        pinned, constant = _pinned(self.rows, self.space, y)
        return replace(self, y=y, pinned=pinned, constant=constant), stale * ~matters

    def _is_open(self, point: Point, stale: Tensor, relative_gap: float) -> Tensor:
        complementarity = point.products().sum(1)
        curved = (point.t * (0.5 * point.t @ self.curvature - self.g)).sum(1)
        objective = self.constant + curved + (point.p + point.n).sum(1)
        scale = self.rows.scale(self.rows.l1 * (objective - complementarity)) / self.rows.l1
        left, norm = Residuals.of(self, point), torch.linalg.vector_norm
        # What a slope that is not zero may gain within reach: a in the ball, b as large as it is;
        # and what it takes to scale the dual point until its correlations with b are at most 1.
        free = self.space.free
        slope_a, slope_b = norm(left.slope[:, :free], dim=1), norm(left.slope[:, free:], dim=1)
        gain = self.kappa * slope_a + norm(point.p - point.n, dim=1) * slope_b
        gain = gain + scale * slope_b**2
        residual = torch.cat([left.split, left.ball], 1).abs().amax(1)
        return (complementarity + stale + gain > relative_gap * scale) | (residual > _RESIDUAL)

    # --- where it starts ------------------------------------------------------------------------

    def least_squares(self) -> tuple[Tensor, Tensor]:
        """t (k, d) of least ½tᵀΛt - gᵀt + ½‖w‖² + ½ρ‖a‖² for the least of some ridges ρ that brings
        a within reach of the ball, and whether (k,) any does."""
        N, (basis, values) = self.N, self.space.ridges
        fit = (self.g - self.pinned @ N) @ basis
        shrink = ((self.pinned * self.ball) @ N) @ basis
        t = torch.zeros_like(self.g)
        far = torch.ones_like(self.g[:, :1], dtype=torch.bool)
        for ridge in _RIDGES:
            at_ridge = ((fit - ridge * shrink) / (1 + ridge * values)) @ basis.T
            t = torch.where(far, at_ridge, t)
            w = self.pinned + t @ N.T
            far = (w.abs() * self.ball).sum(1, keepdim=True) > _REACH * self.kappa
            if not bool(far.any()):
                break
        return t, ~far[:, 0]

    def _split(self, t: Tensor) -> Point:
        """p, n well apart from zero, inside the ball, with the multipliers of a's slope."""
        N, ball = self.N, self.ball
        w = self.pinned + t @ N.T
        room = w.abs().mean(1, keepdim=True).clamp(min=1e-8).expand_as(w)
        y = ((self.g - t @ self.curvature) @ N.T) * ball
        inside = (w.abs() * ball).sum(1, keepdim=True)
        spare = (self.kappa - inside).clamp(min=0.1 * self.kappa) / (4 * ball.sum().clamp(min=1))
        room = torch.where(ball > 0, torch.minimum(room, spare), room)
        p, n = w.clamp(min=0) + room, (-w).clamp(min=0) + room
        theta, slack = torch.zeros_like(inside), torch.zeros_like(inside)
        if self.has_ball:
            theta = (1.5 * y.abs().amax(1, keepdim=True)).clamp(min=1.0)
            slack = self.kappa - ((p + n) * ball).sum(1, keepdim=True)
            slack = slack.clamp(min=0.1 * self.kappa)
        multiplier = 1 + theta * ball
        return Point(t, y, p, n, multiplier - y, multiplier + y, theta, slack)


def _pinned(rows: RowProblem, space: WeakSpace, y: Tensor) -> tuple[Tensor, Tensor]:
    """w_s (k, D) for multipliers y, and what of the objective over λ (k,) does not depend on t."""
    pinned, quadratic = space.pinned(rows.h - rows.l1 * y, rows.h)
    return pinned, (0.5 * rows.zz + quadratic) / rows.l1
