"""Rows whose penalty decides only in directions that the data hardly see, solved in those alone.

A row that M fits almost exactly, min ½‖z - Mw‖² + λ‖w‖₁ with a small λ, has its answer pinned by
the data along every eigenvector of G = MᵀM with an eigenvalue far above λ, and is close to a linear
program in the few others, N: constant or nearly collinear pixels. First-order methods crawl there,
and exchanges of signs cycle. With w = w_s + Nt, t of a few dozen numbers,

    min over t:  ½tᵀΛt - gᵀt + λ‖w_s + Nt‖₁   subject to ‖a‖₁ ≤ κ

is solved by a primal-dual interior-point method (Mehrotra, SIAM J. Optim. 2, 1992) whose matrices
Λ + Nᵀ E⁻¹ N are that small, all rows at once. Its multipliers y then correct the pinned part,
w_s = V Λ⁻¹ Vᵀ (h - y) on the other eigenvectors V, after which Mᵀ(z - Mw) = y exactly: a dual
feasible point, so that the gap that this leaves is of second order in λ/Λ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.best_answers import BestAnswers
from idl_core.sim.solvers.row_problem import RowProblem
from idl_core.sim.solvers.spectrum import Spectrum
from idl_core.wellposed import project_rows

_NUMBERS = 3.2e7  # of the rows' scaled copies of N, 256 MiB of float64
_ROUNDS = 2
_HOPELESS = 0.1  # relative gap after which no second round is tried
_ITERATIONS = 30
_RESIDUAL = 1e-6
_STUCK = 0.97  # share of what lies outside the ball that an iteration may leave there
_ZERO = 1e-2
_STAY = 0.99  # share of the way to the boundary that a step may go
_TINY = 1e-300


def solve_weak(best: BestAnswers, rows: Tensor, spectrum: Spectrum, relative_gap: float) -> None:
    """Improve the answers and the bounds of some rows until they reach `relative_gap`."""
    size = max(1, int(_NUMBERS / spectrum.N.numel()))
    for part in rows.split(size):
        _solve(best, part, spectrum, relative_gap)


def _solve(best: BestAnswers, rows: Tensor, spectrum: Spectrum, relative_gap: float) -> None:
    y = torch.zeros_like(best.problem.h[rows])
    for _ in range(_ROUNDS):
        if not len(rows):
            return
        part = best.problem.rows(rows)
        program = _WeakProgram.of(part, spectrum, spectrum.pinned(part.h - y))
        point = program.solve(0.1 * relative_gap)
        y = part.l1 * point.y
        w = spectrum.pinned(part.h - y) + point.t @ spectrum.N.T
        best.certify(rows, w, part.gram.apply(w))
        # At a zero of w both multipliers are of the order of 1, and p and n nearly nothing. An
        # answer with these zeros is preferred: w itself, a hair better, has none.
        zero = (point.p < _ZERO * point.sp) & (point.n < _ZERO * point.sn)
        best.consider(rows, *_feasible(part, torch.where(zero, 0.0, w)))
        short = best.relative_gap()[rows] > relative_gap
        best.consider(rows[short], *_feasible(part, w[short]))
        gap = best.relative_gap()[rows]
        keep = (gap > relative_gap) & (gap < _HOPELESS)
        rows, y = rows[keep], y[keep]


def _feasible(part: RowProblem, w: Tensor) -> tuple[Tensor, Tensor]:
    """w projected onto the ball, and G times that."""
    if part.ball:
        w = torch.cat([project_rows(w[:, : part.ball], part.kappa), w[:, part.ball :]], 1)
    return w, part.gram.apply(w)


@dataclass
class _Point:
    """Iterates of k rows: w = p - n with multipliers sp, sn; the ball's slack and multiplier."""

    t: Tensor
    y: Tensor
    p: Tensor
    n: Tensor
    sp: Tensor
    sn: Tensor
    theta: Tensor
    slack: Tensor

    def moved(self, step: _Point, length: Tensor) -> _Point:
        pairs = zip(vars(self).values(), vars(step).values(), strict=True)
        return _Point(*(a + length[:, None] * b for a, b in pairs))

    def select(self, keep: Tensor) -> _Point:
        return _Point(*(value[keep] for value in vars(self).values()))

    def put(self, rows: Tensor, other: _Point) -> None:
        for mine, its in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[rows] = its

    def products(self) -> Tensor:
        """(k, 2D + 1) of the complementary pairs."""
        return torch.cat([self.p * self.sp, self.n * self.sn, self.theta * self.slack], 1)


@dataclass
class _WeakProgram:
    """The problem in t of k rows, everything divided by λ.

    Attributes:
        N: (D, d); curvature: (d,); g: (k, d).
        pinned: (k, D), w_s.
        least: (k,) what gaps are relative to at least; `RowProblem.scale` over λ.
        ball: (D,) 1 on the block a, 0 elsewhere; kappa: κ.
    """

    N: Tensor
    curvature: Tensor
    g: Tensor
    pinned: Tensor
    least: Tensor
    ball: Tensor
    kappa: float

    @classmethod
    def of(cls, rows: RowProblem, spectrum: Spectrum, pinned: Tensor) -> _WeakProgram:
        """Of some rows, with w_s = pinned."""
        ball = torch.zeros_like(pinned[0])
        ball[: rows.ball] = 1
        N, g = spectrum.N, rows.h @ spectrum.N
        least = rows.scale(torch.zeros_like(rows.zz))
        l1 = rows.l1
        return cls(N, spectrum.curvature / l1, g / l1, pinned, least / l1, ball, rows.kappa)

    def solve(self, relative_gap: float) -> _Point:
        """Iterate until the complementarity of every row is at most that share of its scale.

        Rows that are done leave the work, since further steps would run into rounding, and so do
        rows whose ball is out of reach.
        """
        answer = self._start()
        rows = torch.arange(len(self.g), device=self.g.device)
        program, point = self, answer
        outside = torch.full_like(self.g[:, :1], torch.inf)
        for _ in range(_ITERATIONS):
            newton = _Newton(program, point)
            # A ball that t cannot reach: what lies outside it no longer falls.
            stuck = (newton.r_b.abs() > _STUCK * outside) & (newton.r_b.abs() > _RESIDUAL)
            outside = newton.r_b.abs()
            products = point.products()
            enough = relative_gap * program.least
            is_open = (products.sum(1) > enough) | (newton.residual() > _RESIDUAL)
            is_open &= ~stuck[:, 0]
            mean = products.mean(1, keepdim=True)
            guess = newton.step(torch.zeros_like(mean), None)
            after = point.moved(guess, _longest(point, guess)).products().mean(1, keepdim=True)
            centre = (after / mean.clamp(min=_TINY)).clamp(0, 1) ** 3 * mean
            step = newton.step(centre, guess)
            length = (_STAY * _longest(point, step)).clamp(max=1.0)
            point = point.moved(step, torch.where(is_open, length, 0.0))
            answer.put(rows, point)
            if not bool(is_open.all()):
                program, point = program.select(is_open), point.select(is_open)
                rows, outside = rows[is_open], outside[is_open]
                if not len(rows):
                    break
        return answer

    def select(self, keep: Tensor) -> _WeakProgram:
        """Of some of the rows."""
        g, pinned, least = self.g[keep], self.pinned[keep], self.least[keep]
        return replace(self, g=g, pinned=pinned, least=least)

    def _start(self) -> _Point:
        w, ball = self.pinned, float(self.ball.any())
        room = w.abs().mean(1, keepdim=True).clamp(min=1e-8)
        theta, slack = (torch.full_like(room, ball * part) for part in (1.0, 0.1 * self.kappa))
        p, n = w.clamp(min=0) + room, (-w).clamp(min=0) + room
        zero, multiplier = torch.zeros_like(w), 1 + theta * self.ball.expand_as(w)
        return _Point(torch.zeros_like(self.g), zero, p, n, multiplier, multiplier, theta, slack)


class _Newton:
    """Newton's equations at a point, reduced to t and the ball's multiplier, factored once."""

    def __init__(self, program: _WeakProgram, point: _Point) -> None:
        self.program, self.point = program, point
        over_p, over_n = point.p / point.sp, point.n / point.sn
        self.E, self.F = over_p + over_n, (over_p - over_n) * program.ball
        N = program.N
        scaled = N * self.E.rsqrt()[:, :, None]
        matrix = scaled.transpose(1, 2) @ scaled
        matrix.diagonal(dim1=1, dim2=2).add_(program.curvature)
        ridge = 1e-15 * matrix.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)
        matrix.diagonal(dim1=1, dim2=2).add_(ridge)
        self.factor, _ = torch.linalg.cholesky_ex(matrix)
        self.has_ball = bool(program.ball.any())
        if self.has_ball:
            self.v = (self.F / self.E) @ N
            self.Kv = self._inverse(self.v)
            stiff = ((self.E - self.F**2 / self.E) * program.ball).sum(1, keepdim=True)
            self.sigma = stiff + point.slack / point.theta
        self.r_w = program.pinned + point.t @ N.T - (point.p - point.n)
        self.r_d = program.g - program.curvature * point.t - point.y @ N
        inside = ((point.p + point.n) * program.ball).sum(1, keepdim=True)
        self.r_b = (program.kappa - inside - point.slack) * float(self.has_ball)

    def residual(self) -> Tensor:
        """(k,) how far the equations that are not complementarity are from holding."""
        return torch.cat([self.r_w, self.r_d, self.r_b], 1).abs().amax(1)

    def _inverse(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve(right[:, :, None], self.factor)[:, :, 0]

    def step(self, centre: Tensor, guess: _Point | None) -> _Point:
        """Towards complementary products of `centre` (k, 1), with the second-order terms of
        `guess` where there is one."""
        at, N, ball = self.point, self.program.N, self.program.ball
        cp, cn = centre - at.p * at.sp, centre - at.n * at.sn
        c_ball = centre - at.theta * at.slack
        if guess is not None:
            cp, cn = cp - guess.p * guess.sp, cn - guess.n * guess.sn
            c_ball = c_ball - guess.theta * guess.slack
        q = cp / at.sp - cn / at.sn
        right = self.r_d - ((self.r_w - q) / self.E) @ N
        dt, d_theta = self._inverse(right), torch.zeros_like(at.theta)
        if self.has_ball:
            Q = ((cp / at.sp + cn / at.sn) * ball).sum(1, keepdim=True)
            along = (self.F / self.E * (self.r_w - q)).sum(1, keepdim=True)
            beta = self.r_b - Q - along - c_ball / at.theta
            down = (self.v * self.Kv).sum(1, keepdim=True) + self.sigma
            d_theta = ((self.v * dt).sum(1, keepdim=True) - beta) / down
            dt = dt - self.Kv * d_theta
        dy = (dt @ N.T + self.r_w - q + self.F * d_theta) / self.E
        d_sp, d_sn = ball * d_theta - dy, ball * d_theta + dy
        d_slack = (c_ball - at.slack * d_theta) / at.theta if self.has_ball else d_theta
        return _Point(
            dt,
            dy,
            (cp - at.p * d_sp) / at.sp,
            (cn - at.n * d_sn) / at.sn,
            d_sp,
            d_sn,
            d_theta,
            d_slack,
        )


def _longest(point: _Point, step: _Point) -> Tensor:
    """(k,) the longest step, at most 1/0.99, that keeps what must be positive so."""
    most = torch.full_like(point.p[:, 0], 1 / _STAY)
    for name in ("p", "n", "sp", "sn", "theta", "slack"):
        value, change = getattr(point, name), getattr(step, name)
        ratio = torch.where(change < 0, value / (-change).clamp(min=_TINY), torch.inf)
        most = torch.minimum(most, ratio.amin(1))
    return most
