"""One equilibrium X = slope ∘ φ(A X + Z), samples as columns, by tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.picard import (
    FIRST,
    Limits,
    Map,
    begin,
    note,
    room_for_history,
    settle,
)
from idl_core.kernels.numba.programs.team import in_team
from idl_core.kernels.numba.programs.tiles import filled, is_turned_once, load, store, strided, turn


@compiled(entry=True)
def solve(
    A: Any,
    turned: bool,
    Z: Any,
    slopes: Any,
    start: Any,
    limits: Limits,
    X: Any,
    figures: Any,
    threads: int,
) -> None:
    """Solve for X (n, m).

    A: contiguous; Aᵀ where it is `turned`
    Z, slopes, start: (n, m); without slopes they are 1, without a start it is slope ∘ φ(Z)
    figures (3, m): of each sample the residual, the bound on it, and how many iterations there were
    """
    At = strided(A) if turned else strided(A.T)
    if turned and is_turned_once(len(A), -(-Z.shape[1] * A.itemsize // TILE_BYTES), threads):
        At = strided(turn(A, threads).T)
    in_team(_solve_tiles, (At, Z, slopes, start, limits, X, figures), threads)


@compiled()
def _solve_tiles(
    At: Any,
    Z: Any,
    slopes: Any,
    start: Any,
    limits: Limits,
    X: Any,
    figures: Any,
    number: int,
    of: int,
) -> None:
    m, rows, lanes, dtype = X.shape[1], filled(len(X)), TILE_BYTES // X.itemsize, X.dtype
    x, before = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    drive, slope = np.zeros((rows, lanes), dtype), np.ones((rows, lanes), dtype)
    history, nothing = room_for_history(rows, x), At[:, :0]
    for first in range(number * lanes, m, of * lanes):
        load(Z, first, drive)
        if len(slopes):
            load(slopes, first, slope)
        if len(start):
            load(start, first, x)
        else:
            begin(drive, limits.phi, slope, x)
        count, x, before, ended = settle(
            Map(nothing, At), None, drive, slope, limits, FIRST, x, before, history
        )
        note(ended, count, figures, first)
        store(x, X, first)
