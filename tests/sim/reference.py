"""What the optimum is, by other means than the code that is tested."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

Array = np.ndarray[Any, Any]


def optimum(X: Array, U: Array, target: Array, l1: float, l2: float, kappa: float | None) -> Array:
    """(k,) optimal objectives, one convex program a row, by Clarabel at tight tolerance."""
    data = np.concatenate([X, U]).astype(np.float64).T
    values = []
    for z in np.asarray(target, np.float64):
        w = cp.Variable(data.shape[1])
        cost = 0.5 * cp.sum_squares(z - data @ w) + l1 * cp.norm1(w)
        if l2:
            cost = cost + 0.5 * l2 * cp.sum_squares(w)
        bound = [] if kappa is None else [cp.norm1(w[: len(X)]) <= kappa]
        problem = cp.Problem(cp.Minimize(cost), bound)
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        values.append(problem.value)
    return np.array(values)


def objective(
    X: Array, U: Array, target: Array, left: Array, right: Array, l1: float, l2: float
) -> Array:
    """(k,) objectives of given rows."""
    misfit = np.asarray(target, np.float64) - left @ X.astype(np.float64) - right @ U
    w = np.concatenate([left, right], 1)
    penalty = l1 * np.abs(w).sum(1) + 0.5 * l2 * (w**2).sum(1)
    return np.asarray(0.5 * (misfit**2).sum(1) + penalty)


def optimality_violation(
    X: Array, U: Array, z: Array, a: Array, b: Array, l1: float, l2: float, kappa: float | None
) -> float:
    """How far one row is from the optimality conditions, relative to the largest correlation.

    With c = Mᵀ(z - Mw) - l2 w: |c_j| ≤ t and c_j = t sign(w_j) where w_j ≠ 0, with t = l1 on b and
    l1 + θ on a, θ ≥ 0 the ball's multiplier, zero where ‖a‖₁ < κ.
    """
    w = np.concatenate([a, b])
    M = np.concatenate([X, U]).astype(np.float64).T
    c = M.T @ (np.asarray(z, np.float64) - M @ w) - l2 * w
    ca, cb = c[: len(a)], c[len(a) :]
    theta = 0.0
    if kappa is not None and len(a) and np.abs(a).sum() > kappa * (1 - 1e-7):
        theta = max(0.0, float(np.abs(ca).max()) - l1)
    worst = 0.0
    for correlation, weights, limit in ((ca, a, l1 + theta), (cb, b, l1)):
        on = weights != 0
        over = np.maximum(np.abs(correlation) - limit, 0)
        inside = np.abs(correlation - limit * np.sign(weights))[on]
        worst = max(worst, over.max(initial=0.0), inside.max(initial=0.0))
    scale = float(np.abs(M.T @ np.asarray(z, np.float64)).max(initial=0.0))
    return worst / scale if scale else worst
