"""A primal-dual interior-point method for k rows at once.

    min over w = (a, b):  ½wᵀKw - hᵀw + λ‖w‖₁   subject to ‖a‖₁ ≤ κ,      K = MᵀM + l2,

everything divided by λ. With w = p - n, multipliers y of that equation, θ of the ball, and its
slack, the conditions are

    (h - Kw)/λ = y,   p s_p = n s_n = θ slack = 0,   κ - 1_aᵀ(p + n) = slack,
    s_p = 1 + θ1_a - y,   s_n = 1 + θ1_a + y,   p, n, s_p, s_n, θ, slack ≥ 0.

The steps are Mehrotra's predictor and corrector (SIAM J. Optim. 2, 1992). How Newton's equations
are reduced to a small matrix for each row is up to the `Program`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.row_problem import RowProblem

RESIDUAL = 1e-6  # of the ball's equation
# Of κ, what the starting point's a may have before the split. A little outside the ball is the
# better start: less of a ridge, and the split's own p and n are inside.
_REACH = 1.3
_ITERATIONS = 60  # most rows take 15 to 20, a few 35
_STAY = 0.99  # share of the way to the boundary that a step may go
_TINY = 1e-300


@dataclass
class Point:
    """Iterates of k rows: t (k, d), what the program reduces to; y, p, n, sp, sn (k, D); theta and
    slack (k, 1). Also their changes in a step."""

    t: Tensor
    y: Tensor
    p: Tensor
    n: Tensor
    sp: Tensor
    sn: Tensor
    theta: Tensor
    slack: Tensor

    def moved(self, step: Point, length: Tensor) -> Point:
        pairs = zip(vars(self).values(), vars(step).values(), strict=True)
        return Point(*(a + length[:, None] * b for a, b in pairs))

    def select(self, keep: Tensor) -> Point:
        return Point(*(value[keep] for value in vars(self).values()))

    def put(self, rows: Tensor, other: Point) -> None:
        for mine, its in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[rows] = its

    def products(self) -> Tensor:
        """(k, 2D + 1) of the complementary pairs."""
        return torch.cat([self.p * self.sp, self.n * self.sn, self.theta * self.slack], 1)

    def longest(self, step: Point) -> Tensor:
        """(k,) the longest step, at most 1/0.99, that keeps what must be positive so."""
        most = torch.full_like(self.p[:, 0], 1 / _STAY)
        for name in ("p", "n", "sp", "sn", "theta", "slack"):
            value, change = getattr(self, name), getattr(step, name)
            ratio = torch.where(change < 0, value / (-change).clamp(min=_TINY), torch.inf)
            most = torch.minimum(most, ratio.amin(1))
        return most


class Program(ABC):
    """k rows, and how their Newton equations are reduced.

    Attributes:
        rows: the rows' h, ‖z‖², λ and κ.
        ball: (D,) 1 on the block a where a ball binds it, else 0.
    """

    rows: RowProblem

    @property
    def has_ball(self) -> bool:
        """Whether any entry is bound."""
        return self.rows.ball > 0

    @property
    def ball(self) -> Tensor:
        mask = torch.zeros_like(self.rows.lengths)
        mask[: self.rows.ball] = 1
        return mask

    @abstractmethod
    def select(self, keep: Tensor) -> Program:
        """Of some of the rows."""

    @abstractmethod
    def judge(self, point: Point, relative_gap: float) -> tuple[Program, Point, Tensor]:
        """The program and the point to go on with, and which rows (k,) are open yet."""

    @abstractmethod
    def newton(self, point: Point) -> Newton:
        """Newton's equations at a point."""

    @abstractmethod
    def answer(self, point: Point) -> Tensor:
        """w (k, D), maybe outside the ball by what is left of its slack."""

    def solve(self, start: Point, relative_gap: float) -> tuple[Point, Tensor]:
        """Iterate until what the gap of each row can still be is that share of its scale.

        Rows that are done leave the work, since further steps would run into rounding.

        Returns:
            The points, and the steps (k,) that each took.
        """
        rows = torch.arange(len(start.t), device=start.t.device)
        steps = torch.zeros_like(rows)
        # A copy: a row may be done where it starts, and a point cannot be written onto itself.
        answer, program, point = start.select(rows), self, start
        for _ in range(_ITERATIONS):
            program, point, is_open = program.judge(point, relative_gap)
            if not bool(is_open.all()):
                answer.put(rows, point)
                program, point, rows = program.select(is_open), point.select(is_open), rows[is_open]
            if not len(rows):
                break
            steps[rows] += 1
            newton = program.newton(point)
            mean = point.products().mean(1, keepdim=True)
            guess = newton.step(torch.zeros_like(mean), None)
            after = point.moved(guess, point.longest(guess).clamp(max=1.0)).products()
            share = after.mean(1, keepdim=True) / mean.clamp(min=_TINY)
            step = newton.step(share.clamp(0, 1) ** 3 * mean, guess)
            point = point.moved(step, (_STAY * point.longest(step)).clamp(max=1.0))
        answer.put(rows, point)
        return answer, steps

    def gap(self, point: Point, smooth: Tensor) -> tuple[Tensor, Tensor]:
        """Complementarity (k,), which is the gap where the conditions hold but for it, and what
        gaps are relative to (k,), both over λ.

        Args:
            smooth: (k,) the objective but for ‖w‖₁, over λ.
        """
        complementarity, l1 = point.products().sum(1), self.rows.l1
        bound = smooth + (point.p + point.n).sum(1) - complementarity
        return complementarity, self.rows.scale(l1 * bound) / l1

    def outside(self, point: Point) -> Tensor:
        """κ - ‖p + n‖₁ of a - slack, (k, 1)."""
        inside = ((point.p + point.n) * self.ball).sum(1, keepdim=True)
        return (self.rows.kappa - inside - point.slack) * float(self.has_ball)

    def within_reach(
        self, at_ridge: Callable[[float], tuple[Tensor, Tensor]], ridges: list[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row the t and w at the least ridge that brings a within reach of the ball, and
        whether (k,) any does."""
        t, w = at_ridge(ridges[0])
        for ridge in ridges[1:]:
            far = self._is_far(w)
            if not bool(far.any()):
                break
            further, its = at_ridge(ridge)
            t, w = torch.where(far, further, t), torch.where(far, its, w)
        return t, w, ~self._is_far(w)[:, 0]

    def _is_far(self, w: Tensor) -> Tensor:
        size = w[:, : self.rows.ball].abs().sum(1, keepdim=True)
        return size > _REACH * self.rows.kappa

    def split(self, t: Tensor, w: Tensor, y: Tensor) -> Point:
        """p, n well apart from zero, inside the ball, around w; y where |y| ≤ 1 on b."""
        kappa, ball = self.rows.kappa, self.ball
        room = w.abs().mean(1, keepdim=True).clamp(min=1e-8).expand_as(w)
        spare = kappa - (w.abs() * ball).sum(1, keepdim=True)
        spare = spare.clamp(min=0.1 * kappa) / (4 * ball.sum().clamp(min=1))
        room = torch.where(ball > 0, torch.minimum(room, spare), room)
        p, n = w.clamp(min=0) + room, (-w).clamp(min=0) + room
        theta = slack = torch.zeros_like(spare)
        if self.has_ball:
            theta = (1.5 * (y * ball).abs().amax(1, keepdim=True)).clamp(min=1.0)
            slack = kappa - ((p + n) * ball).sum(1, keepdim=True)
            slack = slack.clamp(min=0.1 * kappa)
        multiplier = 1 + theta * ball
        return Point(t, y, p, n, multiplier - y, multiplier + y, theta.clone(), slack.clone())


class Newton(ABC):
    """Newton's equations at a point, factored once.

    Attributes:
        E, F: (k, D); the change of w is q + E dy - F dθ, that of p + n on a is r - E dθ + F dy.
    """

    def __init__(self, program: Program, at: Point) -> None:
        self.at, self.ball, self.has_ball = at, program.ball, program.has_ball
        over_p, over_n = at.p / at.sp, at.n / at.sn
        self.E, self.F = over_p + over_n, (over_p - over_n) * self.ball

    @abstractmethod
    def reduced(self, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The changes of t, y and θ for q (k, D) and r (k, 1), the sum over a of the change of
        p + n and of the slack that θ and y leave."""

    def step(self, centre: Tensor, guess: Point | None) -> Point:
        """Towards complementary products of `centre` (k, 1), with the second-order terms of
        `guess` where there is one."""
        at, ball = self.at, self.ball
        cp, cn = centre - at.p * at.sp, centre - at.n * at.sn
        c_ball = centre - at.theta * at.slack
        if guess is not None:
            cp, cn = cp - guess.p * guess.sp, cn - guess.n * guess.sn
            c_ball = c_ball - guess.theta * guess.slack
        over_p, over_n = cp / at.sp, cn / at.sn
        r = ((over_p + over_n) * ball).sum(1, keepdim=True)
        if self.has_ball:
            r = r + c_ball / at.theta
        dt, dy, d_theta = self.reduced(over_p - over_n, r)
        d_sp, d_sn = ball * d_theta - dy, ball * d_theta + dy
        dp, dn = (cp - at.p * d_sp) / at.sp, (cn - at.n * d_sn) / at.sn
        d_slack = (c_ball - at.slack * d_theta) / at.theta if self.has_ball else d_theta
        return Point(dt, dy, dp, dn, d_sp, d_sn, d_theta, d_slack)


class CholeskySolve:
    """Solves with k symmetric matrices (k, d, d), given by their lower triangles.

    Where one has no factor the solution is NaN: the row counts as done, its answer is never taken,
    and its gap stays what it was.
    """

    def __init__(self, matrix: Tensor) -> None:
        # Relative to each entry: their sizes differ by as much as zeros from weights.
        matrix.diagonal(dim1=1, dim2=2).mul_(1 + 1e-15)
        self.factor = cholesky(matrix)

    def __call__(self, right: Tensor) -> Tensor:
        """The solutions (k, d) for right-hand sides (k, d)."""
        # Not torch.cholesky_solve, which copies the factors.
        half = torch.linalg.solve_triangular(self.factor, right[:, :, None], upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True)[:, :, 0]
