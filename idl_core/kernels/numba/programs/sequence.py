"""A sequence of equilibria (`idl_core.kernels.problem.Sequence`), tile of samples after tile.

A tile goes through all steps by itself and iterates at each until its own samples have converged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.picard import (
    FIRST,
    Ended,
    Limits,
    Map,
    room_for_history,
    settle,
)
from idl_core.kernels.numba.programs.team import in_team
from idl_core.kernels.numba.programs.tiles import affine, filled, load, store, strided
from idl_core.kernels.numba.programs.units import divide, grow, multiply

# The first of what is in a tile. As a literal it would be compiled as another type.
_START = np.int64(0)


class Arrays(NamedTuple):
    """The arrays of a sequence, contiguous, those of the samples with samples last. Matrices are
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
    """What a sequence did.

    slots: state, carry and input of all steps (steps, n + k + p, m)
    figures: of each sample (3, m): the largest residual of a step, of those above their bound if
        there are such, the bound on it, and the most iterations of a step. Where the tolerance is
        relative, they are in units of the power of two at or below its largest drive so far
    """

    slots: Any
    figures: Any


@compiled(entry=True)
def solve(given: Arrays, limits: Limits, outcome: Outcome, threads: int) -> bool:
    """Solve a sequence; whether all steps converged."""
    in_team(_solve_tiles, (given, limits, outcome), threads)
    for s in range(outcome.figures.shape[1]):
        if not outcome.figures[0, s] <= outcome.figures[1, s]:
            return False
    return True


@compiled(entry=True)
def recall(given: Arrays, X: Any, slots: Any, threads: int) -> None:
    """Form the slots, the last step first, from the states X (steps, n, m)."""
    in_team(_recall_tiles, (given, X, slots), threads)


@compiled()
def _solve_tiles(given: Arrays, limits: Limits, outcome: Outcome, number: int, of: int) -> None:
    lanes = TILE_BYTES // outcome.slots.itemsize
    for tile in range(number, -(-outcome.figures.shape[1] // lanes), of):
        _solve_tile(given, limits, outcome, tile)


@compiled()
def _solve_tile(given: Arrays, limits: Limits, outcome: Outcome, tile: int) -> None:
    slots, dtype = outcome.slots, outcome.slots.dtype
    lanes = TILE_BYTES // slots.itemsize
    (steps, p, _), (k, _) = given.inputs.shape, given.first_carry.shape
    first, n = tile * lanes, given.outer.shape[1]
    rows, carry_rows = filled(given.outer.shape[1]), filled(given.from_state.shape[1])
    x, before = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    drive, slope = np.zeros((rows, lanes), dtype), np.ones((rows, lanes), dtype)
    figures, history = np.zeros((3, lanes), dtype), room_for_history(rows, x)
    carry, rest = np.zeros((carry_rows, lanes), dtype), np.zeros((k + p, lanes), dtype)
    zeros = np.zeros((max(rows, carry_rows), lanes), dtype)
    of = Map(strided(given.inner), strided(given.outer))
    load(given.first_carry, first, carry)
    sizes, units = np.zeros(lanes, dtype), np.ones(lanes, dtype)
    expected, most = FIRST, 0
    for j in range(steps):
        if j > 0:
            if len(given.added):
                load(given.added[j], first, carry)
                affine(given.from_state, x, carry, carry)
            else:
                affine(given.from_state, x, zeros, carry)
            affine(given.from_rest, rest, carry, carry)
        load(carry[:k], _START, rest)
        load(given.inputs[j], first, rest[k:])
        affine(given.into_drive, rest, zeros, drive)
        if limits.relative:
            grow(sizes, units, drive)
            divide(drive, units)
            divide(x, units)
        if len(given.slopes):
            load(given.slopes[j], first, slope)
        count, x, before, ended = settle(
            of, None, drive, slope, limits, expected, x, before, history
        )
        # One that is met where it is first measured may have been met before.
        expected = count - 1 if count == expected else count
        most = max(most, count)
        _keep_the_worse(ended, figures)
        if limits.relative:
            multiply(x, units)
        store(x, slots[j, :n], first)
        store(rest, slots[j, n:], first)
    figures[2] = most
    store(figures, outcome.figures, first)


@compiled()
def _keep_the_worse(ended: Ended, figures: Any) -> None:
    """figures = the residual and the bound of each sample, where those are worse."""
    for s in range(TILE_BYTES // figures.itemsize):
        if not figures[0, s] <= figures[1, s]:
            continue  # it has failed before
        if not (ended.residual[s] <= ended.bound[s] and ended.residual[s] < figures[0, s]):
            figures[0, s], figures[1, s] = ended.residual[s], ended.bound[s]


@compiled()
def _recall_tiles(given: Arrays, X: Any, slots: Any, number: int, of: int) -> None:
    lanes = TILE_BYTES // slots.itemsize
    (steps, p, _), (k, _), (_, n, m) = given.inputs.shape, given.first_carry.shape, X.shape
    rows = filled(given.from_state.shape[1])
    x, rest = np.zeros((n, lanes), X.dtype), np.zeros((k + p, lanes), X.dtype)
    carry, zeros = np.zeros((rows, lanes), X.dtype), np.zeros((rows, lanes), X.dtype)
    for first in range(number * lanes, m, of * lanes):
        load(given.first_carry, first, carry)
        for j in range(steps):
            if j > 0:
                affine(given.from_state, x, zeros, carry)
                affine(given.from_rest, rest, carry, carry)
            load(carry[:k], _START, rest)
            load(given.inputs[j], first, rest[k:])
            load(X[j], first, x)
            store(x, slots[steps - 1 - j, :n], first)
            store(rest, slots[steps - 1 - j, n:], first)
