"""Picard iteration of one tile of samples, until its own samples have converged."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.tiles import affine, affine_then, filled

# What `settle` expects where nothing is known. As a literal it would be compiled as another type.
FIRST = np.int64(1)


class Limits(NamedTuple):
    """How an equilibrium is iterated, all numbers but `most` of the arrays' own type.

    tol: bound on the change of every entry
    relative: the bound is in units of each sample's largest drive
    rounding: the rounding error of a number of size 1
    most: iterations
    below: slope of φ below zero; above it is 1
    """

    tol: Any
    relative: bool
    rounding: Any
    most: int
    below: Any


@compiled()
def settle(
    inner: Any,
    outer: Any,
    drive: Any,
    slope: Any,
    limits: Limits,
    tol: Any,
    expected: int,
    x: Any,
    before: Any,
) -> tuple[int, Any, Any]:
    """Iterate x = slope ∘ φ(outerᵀ innerᵀ x + drive) from x; φ(outerᵀ x + drive) if inner is empty.

    The first iteration that is measured is the one numbered `expected`.

    Returns:
        How many it took, 0 where it did not converge or would take more than `limits.most`; the
        result; the iterate before it. Both are in the memory of x and before.
    """
    small = np.zeros((filled(inner.shape[1]), x.shape[1]), x.dtype)
    zeros = np.zeros_like(small)
    count, looked_at, last_change = 0, 4, x.dtype.type(0)
    while count < limits.most:
        x, before = before, x
        if len(small):
            affine(inner, before, zeros, small)
            affine_then(outer, small, drive, limits.below, slope, x)
        else:
            affine_then(outer, before, drive, limits.below, slope, x)
        count += 1
        if count >= expected and _within(x, before, tol):
            return count, x, before
        if count == looked_at:  # 4, 8, 16, …
            if _within_rounding(x, before, tol, limits.rounding):
                return count, x, before
            change = _largest_change(x, before)
            if last_change > 0:
                # What the rest of the iterations would leave, at the rate of the second half.
                periods = (limits.most - count) / (count // 2)
                if not change * (change / last_change) ** periods <= tol:
                    break
            last_change, looked_at = change, 2 * looked_at
    return 0, x, before


@compiled()
def record(x: Any, before: Any, change: Any) -> None:
    """change = max(change, |x - before|)"""
    new, old, most = x.ravel(), before.ravel(), change.ravel()
    for i in range(new.size):
        d = abs(new[i] - old[i])
        most[i] = d if d > most[i] else most[i]


@compiled()
def look(x: Any, before: Any, looks: Any) -> None:
    """looks (2, lanes) = max|x - before| and max|x| of each sample of a tile."""
    looks[:] = 0
    for i in range(x.shape[0]):
        for s in range(TILE_BYTES // x.itemsize):  # known to the compiler
            looks[0, s] = max(looks[0, s], abs(x[i, s] - before[i, s]))
            looks[1, s] = max(looks[1, s], abs(x[i, s]))


@compiled()
def _within(x: Any, before: Any, tol: Any) -> bool:
    """Whether no entry has changed by more than tol, or to something that is not a number."""
    new, old = x.ravel(), before.ravel()
    over = 0
    for i in range(new.size):
        over += not (abs(new[i] - old[i]) <= tol)
    return over == 0


@compiled()
def _within_rounding(x: Any, before: Any, tol: Any, rounding: Any) -> bool:
    """The same, the tol of a sample being at least `rounding` times its largest entry."""
    for s in range(x.shape[1]):
        size = x.dtype.type(0)
        for i in range(x.shape[0]):
            size = max(size, abs(x[i, s]))
        for i in range(x.shape[0]):
            if not abs(x[i, s] - before[i, s]) <= max(tol, rounding * size):
                return False
    return True


@compiled()
def _largest_change(x: Any, before: Any) -> Any:
    """max|x - before|; what is not a number does not count."""
    new, old = x.ravel(), before.ravel()
    result = x.dtype.type(0)
    for i in range(new.size):
        result = max(result, abs(new[i] - old[i]))
    return result
