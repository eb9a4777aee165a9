"""A primal-dual interior-point method for k rows at once.

    min over w = (a, b):  ½‖z - Mw‖² + ½ l2‖w‖² + λ‖w‖₁   subject to ‖a‖₁ ≤ κ.

With w = p - n, multipliers y of that equation, θ of the ball, and its slack, the conditions are

    c = Mᵀ(z - Mw) - l2 w = y,   p s_p = n s_n = θ slack = 0,   κ - 1_aᵀ(p + n) = slack,
    s_p = λ + θ1_a - y,   s_n = λ + θ1_a + y,   p, n, s_p, s_n, θ, slack ≥ 0.

Newton's equations are reduced to (MᵀM + l2 + diag(E)⁻¹) dw = g, E = p/s_p + n/s_n, and one equation
for dθ. The steps are Mehrotra's predictor and corrector ("On the implementation of a primal-dual
interior point method", SIAM J. Optim. 2, 1992). The first condition's residual comes from the data
at every step, not from MᵀM, which makes each step a refinement of those before.

Columns of b without an ℓ1 penalty (λ = 0) are not split; their p, n, s_p, s_n are constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.newton_systems import Factored, NewtonSystems
from idl_core.sim.solvers.problem.row_problem import RowProblem

_STAY = 0.995  # share of the way to the boundary that a step may go
_PRECISION = 1e-5  # of the solution of Newton's equations
_ROUNDING = 4 * torch.finfo(torch.float64).eps
_TINY = 1e-300


@dataclass
class Point:
    """Iterates of k rows: w, y, p, n, sp, sn (k, D); theta and slack (k, 1). Also their changes."""

    w: Tensor
    y: Tensor
    p: Tensor
    n: Tensor
    sp: Tensor
    sn: Tensor
    theta: Tensor
    slack: Tensor

    @classmethod
    def joined(cls, points: list[Point]) -> Point:
        """The rows of all, one after the other."""
        fields = zip(*(vars(point).values() for point in points), strict=True)
        return cls(*(torch.cat(parts) for parts in fields))

    def moved(self, step: Point, length: Tensor) -> Point:
        """The point after a step of that length (k,)."""
        pairs = zip(vars(self).values(), vars(step).values(), strict=True)
        return Point(*(a + length[:, None] * b for a, b in pairs))

    def select(self, keep: Tensor) -> Point:
        """Of some of the rows."""
        return Point(*(value[keep] for value in vars(self).values()))

    def longest(self, step: Point) -> Tensor:
        """(k,) the longest step, at most 1/0.995, that keeps what must be positive so."""
        most = torch.full_like(self.p[:, 0], 1 / _STAY)
        for name in ("p", "n", "sp", "sn", "theta", "slack"):
            value, change = getattr(self, name), getattr(step, name)
            ratio = torch.where(change < 0, value / (-change).clamp(min=_TINY), torch.inf)
            most = torch.minimum(most, ratio.amin(1))
        return most


@dataclass(frozen=True)
class Masks:
    """Which columns (D,) are split, and which are bound by the ball; 1 or 0."""

    split: Tensor
    ball: Tensor

    @classmethod
    def of(cls, problem: RowProblem) -> Masks:
        ball = torch.zeros_like(problem.data.lengths)
        ball[: problem.ball] = 1
        return cls(torch.ones_like(ball) if problem.l1 else ball, ball)

    def complementarity(self, point: Point) -> Tensor:
        """(k, 1) mean of the complementary products."""
        total = ((point.p * point.sp + point.n * point.sn) * self.split).sum(1, keepdim=True)
        total = total + point.theta * point.slack
        pairs = 2 * self.split.sum() + (self.ball.sum() > 0)
        return total / pairs.clamp(min=1)


class NewtonStep:
    """Newton's equations of some rows at a point, factored once.

    Args:
        problem, masks: the rows.
        systems: how the reduced equations are solved.
        at: the point.
        c: (k, D), Mᵀ(z - Mw) there.
    """

    def __init__(
        self, problem: RowProblem, masks: Masks, systems: NewtonSystems, at: Point, c: Tensor
    ) -> None:
        self.at, self.masks, self.has_ball = at, masks, problem.ball > 0
        self.over_p, self.over_n = at.p / at.sp, at.n / at.sn
        self.E = self.over_p + self.over_n
        self.F = (self.over_p - self.over_n) * masks.ball
        self.inverse = masks.split / self.E
        # What rounding hides of MᵀM's curvature is added: matrices stay positive definite, and what
        # that damps of a step the next one makes good.
        damping = _ROUNDING * problem.data.lengths**2
        self.factored: Factored = systems.factored(problem.l2 + self.inverse + damping)
        self.left = c - problem.l2 * at.w - at.y
        self.unsplit = (at.w - at.p + at.n) * masks.split
        self.error = torch.zeros_like(at.p[:, 0])  # of the solutions, the worst so far
        self.f = self.F * self.inverse
        if self.has_ball:
            inside = ((at.p + at.n) * masks.ball).sum(1, keepdim=True)
            self.outside = problem.kappa - inside - at.slack
            stiff = 4 * self.over_p * self.over_n * self.inverse * masks.ball
            self.down = stiff.sum(1, keepdim=True) + at.slack / at.theta

    def predictor(self) -> Point:
        """The step towards complementary products of zero."""
        centre = torch.zeros_like(self.at.theta)
        over_p, over_n = self._products(centre, None)
        q = over_p - over_n - self.unsplit
        right = self.left + q * self.inverse
        if not self.has_ball:
            return self._step(over_p, over_n, self._solve(right[None])[0], centre)
        dw, self.V = self._solve(torch.stack([right, self.f]))
        self.down = self.down + (self.f * self.V).sum(1, keepdim=True)
        return self._step(over_p, over_n, dw, -self.at.theta * self.at.slack)

    def corrector(self, centre: Tensor, guess: Point) -> Point:
        """The step towards complementary products of `centre` (k, 1), with the second-order terms
        of the predictor's; it comes first, for it solves for the ball's multiplier too."""
        over_p, over_n = self._products(centre, guess)
        q = over_p - over_n - self.unsplit
        dw = self._solve((self.left + q * self.inverse)[None])[0]
        c_ball = centre - self.at.theta * self.at.slack - guess.theta * guess.slack
        return self._step(over_p, over_n, dw, c_ball)

    def _solve(self, g: Tensor) -> Tensor:
        x, error = self.factored.solve(g, _PRECISION)
        self.error = torch.maximum(self.error, error)
        return x

    def _products(self, centre: Tensor, guess: Point | None) -> tuple[Tensor, Tensor]:
        """What the complementary products are to change by, over s_p and s_n."""
        at, split = self.at, self.masks.split
        cp, cn = centre - at.p * at.sp, centre - at.n * at.sn
        if guess is not None:
            cp, cn = cp - guess.p * guess.sp, cn - guess.n * guess.sn
        return cp / at.sp * split, cn / at.sn * split

    def _step(self, over_p: Tensor, over_n: Tensor, dw: Tensor, c_ball: Tensor) -> Point:
        """All changes, from those of w as if θ stayed; c_ball is what θ · slack is to change by."""
        at, ball, split = self.at, self.masks.ball, self.masks.split
        q = over_p - over_n - self.unsplit
        d_theta = d_slack = torch.zeros_like(at.theta)
        if self.has_ball:
            right = ((over_p + over_n) * ball).sum(1, keepdim=True) + c_ball / at.theta
            right = right - self.outside + (self.f * (dw - q)).sum(1, keepdim=True)
            d_theta = right / self.down
            dw = dw - self.V * d_theta
            d_slack = (c_ball - at.slack * d_theta) / at.theta
        dy = (dw - q + self.F * d_theta) * self.inverse
        d_sp, d_sn = ball * d_theta - dy, ball * d_theta + dy
        dp = (over_p - self.over_p * d_sp) * split
        dn = (over_n - self.over_n * d_sn) * split
        return Point(dw, dy, dp, dn, d_sp, d_sn, d_theta, d_slack)


def advance(
    problem: RowProblem, masks: Masks, systems: NewtonSystems, at: Point, c: Tensor
) -> tuple[Point, Tensor]:
    """One predictor-corrector step of k rows, and the error (k,) of its linear equations."""
    newton = NewtonStep(problem, masks, systems, at, c)
    mean = masks.complementarity(at)
    guess = newton.predictor()
    after = masks.complementarity(at.moved(guess, at.longest(guess).clamp(max=1.0)))
    share = (after / mean.clamp(min=_TINY)).clamp(0, 1) ** 3
    step = newton.corrector(share * mean, guess)
    return at.moved(step, (_STAY * at.longest(step)).clamp(max=1.0)), newton.error
