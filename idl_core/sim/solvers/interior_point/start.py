"""Where the interior-point method starts: ridge regression, inside the ball.

With a ridge ρ the residual's correlations are ρw: of the size of λ for ρ = λ‖w‖₁/‖w‖², so that the
point is nearly dual feasible. On the block a the ridge is the least of some that brings a within
reach of the ball.
"""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.mehrotra import Masks, Point
from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.compressed_data import CompressedData
from idl_core.sim.solvers.problem.row_problem import RowProblem

_REACH = 0.8  # of κ, what the starting point's a may have
_RIDGES = [10.0 ** (half / 2) for half in range(1, 25)]
_TINY = 1e-300


def starting_point(problem: RowProblem, masks: Masks) -> tuple[Point, Tensor]:
    """The point of all rows, and whether the ball binds its a (k,)."""
    ridge, w = _least_squares(problem)
    binds = torch.zeros_like(problem.zz, dtype=torch.bool)
    if problem.ball:
        binds = _is_far(w, problem, _REACH)
        for multiple in _RIDGES:
            far = _is_far(w, problem, _REACH)
            if not bool(far.any()):
                break
            some = problem.rows(far)
            w[far] = _ridge(some, ridge * (1 + multiple * masks.ball))
        w[:, : problem.ball] *= _shrink(w, problem, _REACH)
    return _split(problem, masks, w), binds


def _least_squares(problem: RowProblem) -> tuple[Tensor, Tensor]:
    """The ridge ρ (scalar), about λ‖w‖₁/‖w‖² of the median row, and the w (k, D) it gives."""
    floor = torch.finfo(torch.float64).eps * problem.data.lengths.square().max()
    ridge = torch.maximum(floor, floor.new_tensor(problem.l1))
    every = torch.ones_like(problem.data.lengths)
    for _ in range(2):
        w = _ridge(problem, ridge * every)
        if not problem.l1:
            break
        size, square = w.abs().sum(1), (w * w).sum(1)
        wanted = problem.l1 * size / square.clamp(min=_TINY)
        wanted = wanted[square > 0]
        if not len(wanted) or 0.1 < float(wanted.median() / ridge) < 10:
            break
        ridge = torch.maximum(floor, wanted.median())
        w = _ridge(problem, ridge * every)
    return ridge, w


def _ridge(problem: RowProblem, weights: Tensor) -> Tensor:
    """argmin ½‖z - Mw‖² + ½ Σ (l2 + weights) w², for weights (D,), refined once."""
    weights = weights + problem.l2
    solve = _shared_solve(problem.data, weights)
    w: Tensor = solve(problem.targets.z @ problem.data.factor)
    for _ in range(2):
        left = problem.residual(w).c - weights * w
        w = w + solve(left)
    return w


def _shared_solve(data: CompressedData, weights: Tensor):  # type: ignore[no-untyped-def]
    """Solves with MᵀM + diag(weights), one matrix for all rows, on its smaller side."""
    R = data.factor
    if len(R) < data.size:
        over = R / weights
        kernel = over @ R.T
        kernel.diagonal().add_(1.0)
        factor = cholesky(kernel)

        def thin(g: Tensor) -> Tensor:
            inner = torch.cholesky_solve((g @ over.T).T, factor).T
            return g / weights - inner @ over

        return thin
    matrix = data.gram.clone()
    matrix.diagonal().add_(weights)
    factor = cholesky(matrix)
    return lambda g: torch.cholesky_solve(g.T, factor).T


def _is_far(w: Tensor, problem: RowProblem, reach: float) -> Tensor:
    return w[:, : problem.ball].abs().sum(1) > reach * problem.kappa


def _shrink(w: Tensor, problem: RowProblem, reach: float) -> Tensor:
    size = w[:, : problem.ball].abs().sum(1, keepdim=True)
    return (reach * problem.kappa / size.clamp(min=_TINY)).clamp(max=1.0)


def _split(problem: RowProblem, masks: Masks, w: Tensor) -> Point:
    """The centred point around w: p - n = w, and all complementary products the same μ.

    With Λ = λ + θ1_a, p s_p = n s_n = μ and s_p + s_n = 2Λ have one solution, p + n = (μ + √(Λ²w² +
    μ²))/Λ; θ is such that the ball's equation holds. What is left is c ≠ y. For small w, y is
    Λ²w/2μ: on b, where c is ρw, λ²/2ρ is the μ that fits.
    """
    l1, ball, size = problem.l1, masks.ball, w.abs()
    total = size.sum(1, keepdim=True).clamp(min=_TINY)
    mu = 0.5 * l1 * (size * size).sum(1, keepdim=True) / total
    theta = slack = torch.zeros_like(mu)
    if problem.ball:
        a = size[:, : problem.ball]
        spare = problem.kappa - a.sum(1, keepdim=True)
        c = problem.residual(w).c - problem.l2 * w
        over = (c[:, : problem.ball].abs().amax(1, keepdim=True) - l1).clamp(min=0)
        least = 1e-12 * float(problem.data.lengths.max()) ** 2
        mu = torch.maximum(mu, over * spare / (2 * problem.ball + 1)).clamp(min=least * _TINY)
        theta = _multiplier(a, mu, l1, problem.kappa, spare)
        slack = mu / theta
    mu = mu.clamp(min=1e-200)
    multiplier = (l1 + theta * ball).clamp(min=_TINY)
    root = (multiplier * multiplier * size * size + mu * mu).sqrt()
    large = (mu + multiplier * size + root) / (2 * multiplier)
    # n = large - |w|, without the cancellation: n·large = μ(large + n)/2Λ.
    small = mu * large / (2 * multiplier * large - mu)
    p, n = torch.where(w > 0, large, small), torch.where(w > 0, small, large)
    sp, sn = mu / p, mu / n
    y = torch.where(w > 0, multiplier - sp, sn - multiplier)
    one, split = torch.ones_like(w), masks.split > 0
    p, n, sp, sn = (torch.where(split, part, one) for part in (p, n, sp, sn))
    return Point(w, y * masks.split, p, n, sp, sn, theta.clone(), slack.clone())


def _multiplier(a: Tensor, mu: Tensor, l1: float, kappa: float, spare: Tensor) -> Tensor:
    """θ (k, 1) for which p + n of the block a and the slack μ/θ add up to κ, by bisection."""
    high = mu * (2 * a.shape[1] + 1) / spare
    low = mu / kappa * 1e-3
    for _ in range(60):
        theta = (low * high).sqrt()
        multiplier = l1 + theta
        inside = (mu + ((multiplier * a) ** 2 + mu * mu).sqrt()).sum(1, keepdim=True) / multiplier
        much = inside + mu / theta > kappa
        low, high = torch.where(much, theta, low), torch.where(much, high, theta)
    return high
