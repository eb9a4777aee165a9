"""Newton's equations of the interior-point method, reduced to small matrices.

The conditions of  min ½tᵀΛt - gᵀt + ‖w_s + Nt‖₁, ‖a‖₁ ≤ κ  with w_s + Nt = p - n, multipliers y of
that equation, s_p = 1 + θ1_a - y and s_n = 1 + θ1_a + y of p, n ≥ 0, and θ of the ball with its
slack, are

    g - Λt - Nᵀy = 0,   w_s + Nt - p + n = 0,   κ - 1_aᵀ(p + n) - slack = 0,
    p s_p = n s_n = θ slack = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from idl_core.sim.solvers.interior_point import Program

STAY = 0.99  # share of the way to the boundary that a step may go
_TINY = 1e-300


@dataclass
class Point:
    """Iterates of k rows: t (k, d); y, p, n, sp, sn (k, D); theta, slack (k, 1)."""

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
        """(k,) the longest step, at most 1/STAY, that keeps what must be positive so."""
        most = torch.full_like(self.p[:, 0], 1 / STAY)
        for name in ("p", "n", "sp", "sn", "theta", "slack"):
            value, change = getattr(self, name), getattr(step, name)
            ratio = torch.where(change < 0, value / (-change).clamp(min=_TINY), torch.inf)
            most = torch.minimum(most, ratio.amin(1))
        return most


@dataclass
class Residuals:
    """How far the equations that are not complementarity are from holding at a point."""

    slope: Tensor
    split: Tensor
    ball: Tensor

    @classmethod
    def of(cls, program: Program, at: Point) -> Residuals:
        N = program.N
        inside = ((at.p + at.n) * program.ball).sum(1, keepdim=True)
        return cls(
            program.g - at.t @ program.curvature - at.y @ N,
            program.pinned + at.t @ N.T - (at.p - at.n),
            (program.kappa - inside - at.slack) * float(program.has_ball),
        )


class Newton:
    """The equations at a point, reduced to t and the ball's multiplier, factored once."""

    def __init__(self, program: Program, at: Point) -> None:
        self.program, self.at = program, at
        self.residuals = Residuals.of(program, at)
        over_p, over_n = at.p / at.sp, at.n / at.sn
        self.E, self.F = over_p + over_n, (over_p - over_n) * program.ball
        matrix = program.space.products.lower(1 / self.E)
        matrix += program.curvature
        # Relative to each entry: their sizes differ by as much as zeros from weights.
        matrix.diagonal(dim1=1, dim2=2).mul_(1 + 1e-15)
        self.factor, _ = torch.linalg.cholesky_ex(matrix)
        if program.has_ball:
            self.v = (self.F / self.E) @ program.N
            self.Kv = self._inverse(self.v)
            stiff = ((self.E - self.F**2 / self.E) * program.ball).sum(1, keepdim=True)
            self.sigma = stiff + at.slack / at.theta

    def _inverse(self, right: Tensor) -> Tensor:
        # Not cholesky_solve, which copies the factors.
        half = torch.linalg.solve_triangular(self.factor, right[:, :, None], upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True)[:, :, 0]

    def step(self, centre: Tensor, guess: Point | None) -> Point:
        """Towards complementary products of `centre` (k, 1), with the second-order terms of
        `guess` where there is one."""
        at, N, ball, left = self.at, self.program.N, self.program.ball, self.residuals
        cp, cn = centre - at.p * at.sp, centre - at.n * at.sn
        c_ball = centre - at.theta * at.slack
        if guess is not None:
            cp, cn = cp - guess.p * guess.sp, cn - guess.n * guess.sn
            c_ball = c_ball - guess.theta * guess.slack
        split = left.split - (cp / at.sp - cn / at.sn)
        dt = self._inverse(left.slope - (split / self.E) @ N)
        d_theta = d_slack = torch.zeros_like(at.theta)
        if self.program.has_ball:
            inside = ((cp / at.sp + cn / at.sn) * ball).sum(1, keepdim=True)
            along = (self.F / self.E * split).sum(1, keepdim=True)
            beta = left.ball - inside - along - c_ball / at.theta
            down = (self.v * self.Kv).sum(1, keepdim=True) + self.sigma
            d_theta = ((self.v * dt).sum(1, keepdim=True) - beta) / down
            dt = dt - self.Kv * d_theta
            d_slack = (c_ball - at.slack * d_theta) / at.theta
        dy = (dt @ N.T + split + self.F * d_theta) / self.E
        d_sp, d_sn = ball * d_theta - dy, ball * d_theta + dy
        dp, dn = (cp - at.p * d_sp) / at.sp, (cn - at.n * d_sn) / at.sn
        return Point(dt, dy, dp, dn, d_sp, d_sn, d_theta, d_slack)
