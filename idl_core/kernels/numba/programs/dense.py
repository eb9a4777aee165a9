"""One equilibrium X = slope ∘ φ(A X + Z), samples as columns, by tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.picard import FIRST, Limits, record, settle
from idl_core.kernels.numba.programs.team import in_team
from idl_core.kernels.numba.programs.tiles import affine_then, filled, load, store, strided


@compiled()
def solve(
    A: Any,
    turned: bool,
    Z: Any,
    slopes: Any,
    start: Any,
    limits: Limits,
    X: Any,
    changes: Any,
    counts: Any,
    threads: int,
) -> None:
    """Solve for X (n, m).

    A: contiguous; Aᵀ where it is `turned`
    Z, slopes, start: (n, m); without slopes they are 1, without a start it is slope ∘ φ(Z)
    changes (n, m), counts (m,): what the last iteration changed, and how many there were, 0 where
        they do not converge
    """
    At = strided(A) if turned else strided(A.T)
    in_team(_solve_tiles, (At, Z, slopes, start, limits, X, changes, counts), threads)


@compiled()
def _solve_tiles(
    At: Any,
    Z: Any,
    slopes: Any,
    start: Any,
    limits: Limits,
    X: Any,
    changes: Any,
    counts: Any,
    number: int,
    of: int,
) -> None:
    m, rows, lanes, dtype = X.shape[1], filled(len(X)), TILE_BYTES // X.itemsize, X.dtype
    x, before = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    drive, change = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    slope, nothing = np.ones((rows, lanes), dtype), At[:, :0]
    for first in range(number * lanes, m, of * lanes):
        load(Z, first, drive)
        if len(slopes):
            load(slopes, first, slope)
        if len(start):
            load(start, first, x)
        else:
            affine_then(At[:0], before, drive, limits.below, slope, x)
        count, x, before = settle(nothing, At, drive, slope, limits, limits.tol, FIRST, x, before)
        if not count:
            return
        counts[first : first + lanes] = count
        change[:] = 0
        record(x, before, change)
        store(x, X, first)
        store(change, changes, first)
