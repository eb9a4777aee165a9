"""A chain of equilibria, as of `idl_core.kernels.sweep`, one tile of samples after another.

A tile goes through all steps by itself and iterates at each until its own samples have converged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_core.kernels.numba import TILE_BYTES
from idl_core.kernels.numba.compiled import compiled
from idl_core.kernels.numba.picard import FIRST, Limits, of_tiles, room_for_history, settle
from idl_core.kernels.numba.team import in_team
from idl_core.kernels.numba.tiles import affine, filled, largest, load, store, strided

# The first of what is in a tile. As a literal it would be compiled as another type.
_START = np.int64(0)


class TiledChain(NamedTuple):
    """The arrays of a chain, contiguous, those of the samples with samples last. Matrices are
    transposed.

    inner, outer: Mᵀ = inner outer, or outer where inner has no columns
    into_drive: Eᵀ
    from_state, from_rest: Kᵀ by rows: those of the state, and those of the carry and the input
    inputs, added, slopes: (steps, p or k or n, m); the last two have no step where there are none
    """

    inner: Any
    outer: Any
    into_drive: Any
    from_state: Any
    from_rest: Any
    first_carry: Any
    inputs: Any
    added: Any
    slopes: Any


class Outcome(NamedTuple):
    """What a chain did.

    slots: state, carry and input of all steps (steps, n + k + p, m)
    figures: of each sample (3, m): the largest residual of a step, the bound on it, and the most
        iterations of a step; 0 where one did not converge
    drives: the largest drive that each tile has met
    """

    slots: Any
    figures: Any
    drives: Any


@compiled()
def solve(chain: TiledChain, limits: Limits, outcome: Outcome, threads: int) -> bool:
    """Solve a chain; whether all steps converged. Where some have not, nothing is known."""
    in_team(_solve_tiles, (chain, limits, outcome), threads)
    return outcome.figures[2].all()


@compiled()
def recall(chain: TiledChain, X: Any, slots: Any, threads: int) -> None:
    """Form the slots, the last step first, from the states X (steps, n, m)."""
    in_team(_recall_tiles, (chain, X, slots), threads)


@compiled()
def _solve_tiles(chain: TiledChain, limits: Limits, outcome: Outcome, number: int, of: int) -> None:
    for tile in range(number, outcome.drives.size, of):
        _solve_tile(chain, limits, outcome, tile)


@compiled()
def _solve_tile(chain: TiledChain, limits: Limits, outcome: Outcome, tile: int) -> None:
    slots, dtype = outcome.slots, outcome.slots.dtype
    lanes = TILE_BYTES // slots.itemsize
    (steps, p, _), (k, _) = chain.inputs.shape, chain.first_carry.shape
    first, n = tile * lanes, chain.outer.shape[1]
    rows, carry_rows = filled(chain.outer.shape[1]), filled(chain.from_state.shape[1])
    x, before = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    drive, slope = np.zeros((rows, lanes), dtype), np.ones((rows, lanes), dtype)
    figures, history = np.zeros((3, lanes), dtype), room_for_history(rows, x)
    carry, rest = np.zeros((carry_rows, lanes), dtype), np.zeros((k + p, lanes), dtype)
    zeros = np.zeros((max(rows, carry_rows), lanes), dtype)
    of = of_tiles(strided(chain.inner), strided(chain.outer))
    load(chain.first_carry, first, carry)
    tol, expected, most = limits.tol, FIRST, 0
    for j in range(steps):
        if j > 0:
            if len(chain.added):
                load(chain.added[j], first, carry)
                affine(chain.from_state, x, carry, carry)
            else:
                affine(chain.from_state, x, zeros, carry)
            affine(chain.from_rest, rest, carry, carry)
        load(carry[:k], _START, rest)
        load(chain.inputs[j], first, rest[k:])
        affine(chain.into_drive, rest, zeros, drive)
        if limits.relative:
            outcome.drives[tile] = max(outcome.drives[tile], largest(drive))
            tol = limits.tol * outcome.drives[tile]
        if len(chain.slopes):
            load(chain.slopes[j], first, slope)
        count, x, before, ended = settle(
            of, drive, slope, limits, tol, expected, x, before, history
        )
        for s in range(lanes):
            if not ended.residual[s] <= ended.bound[s]:
                return
        # One that is met where it is first measured may have been met before.
        expected = count - 1 if count == expected else count
        most = max(most, count)
        for s in range(lanes):  # the figures of the worst step of each sample
            if ended.residual[s] >= figures[0, s]:
                figures[0, s], figures[1, s] = ended.residual[s], ended.bound[s]
        store(x, slots[j, :n], first)
        store(rest, slots[j, n:], first)
    figures[2] = most
    store(figures, outcome.figures, first)


@compiled()
def _recall_tiles(chain: TiledChain, X: Any, slots: Any, number: int, of: int) -> None:
    lanes = TILE_BYTES // slots.itemsize
    (steps, p, _), (k, _), (_, n, m) = chain.inputs.shape, chain.first_carry.shape, X.shape
    rows = filled(chain.from_state.shape[1])
    x, rest = np.zeros((n, lanes), X.dtype), np.zeros((k + p, lanes), X.dtype)
    carry, zeros = np.zeros((rows, lanes), X.dtype), np.zeros((rows, lanes), X.dtype)
    for first in range(number * lanes, m, of * lanes):
        load(chain.first_carry, first, carry)
        for j in range(steps):
            if j > 0:
                affine(chain.from_state, x, zeros, carry)
                affine(chain.from_rest, rest, carry, carry)
            load(carry[:k], _START, rest)
            load(chain.inputs[j], first, rest[k:])
            load(X[j], first, x)
            store(x, slots[steps - 1 - j, :n], first)
            store(rest, slots[steps - 1 - j, n:], first)
