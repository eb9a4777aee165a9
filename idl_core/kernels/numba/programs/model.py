"""A whole implicit model, Y = C X + D U at X = φ(A X + B U), and its gradients, by tiles.

The matrices are as the model keeps them, and samples are rows: U (m, p), X (m, n), Y (m, q). All
are contiguous and come as addresses. Of a dense A `left` is A, and `right` has no columns; else
they are the factors (n, r) of A = left rightᵀ. Without a D, its rows d are 0, else q.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_core.kernels.numba.programs import ROWS, TILE_BYTES
from idl_core.kernels.numba.programs.compiled import at, compiled
from idl_core.kernels.numba.programs.picard import (
    FIRST,
    Limits,
    Map,
    begin,
    linear_image,
    note,
    room_for_history,
    settle,
)
from idl_core.kernels.numba.programs.smooth import slope_of_tile
from idl_core.kernels.numba.programs.team import in_team
from idl_core.kernels.numba.programs.tiles import (
    add_product,
    affine,
    filled,
    is_turned_once,
    load,
    load_samples,
    product,
    store,
    store_samples,
    strided,
    turn,
)
from idl_core.kernels.numba.programs.units import divide, grow, multiply

# Terms that a product sums up in one go.
_DEPTH = 1024
# Rows of a product that all tiles go through while their weights are in the caches.
_PANEL = 16 * ROWS
# Tiles of a gradient that are summed up side by side.
_TILES = 8
# The first row of a product. As a literal it would be compiled as another type.
_START = np.int64(0)


@compiled(entry=True)
def forward(matrices: Any, batch: Any, found: Any, sizes: Any, limits: Limits, threads: int) -> int:
    """Solve for X and form Y; returns how it ended, as `ended`.

    matrices: left, right, B, C and D
    batch: U, and X to start from, which may be 0 for φ(B U)
    found: what is written
        B U and D U in tiles of filled(n) + filled(q) rows (tiles, rows, lanes)
        X
        the product of X and right, samples last (r, m)
        figures (3, m): the residual of each sample, its bound, and how many iterations there were
        Y
    sizes: m, p, n, q, r, d
    """
    m, p, n, q, r, _ = sizes
    left, right, B, C, D = _matrices(matrices, sizes, limits.tol)
    U = at(batch[0], (m, p), limits.tol)
    start = at(batch[1], (m if batch[1] else 0, n), limits.tol)
    lanes = TILE_BYTES // U.itemsize
    driven = at(found[0], (-(-m // lanes), filled(n) + filled(q), lanes), limits.tol)
    X, inner = at(found[1], (m, n), limits.tol), at(found[2], (r, m), limits.tol)
    figures, Y = at(found[3], (3, m), limits.tol), at(found[4], (m, q), limits.tol)
    in_team(_drive_tiles, (B, D, U, driven), threads)
    given = (left, right, C, start, limits, driven)
    in_team(_solve_tiles, (given, (X, inner, figures, Y)), threads)
    return ended(figures, limits.tol)


@compiled(entry=True)
def backward(
    matrices: Any,
    batch: Any,
    found: Any,
    gradients: Any,
    sizes: Any,
    limits: Limits,
    phi: Any,
    threads: int,
) -> int:
    """Solve V = φ'(X) ∘ (Aᵀ V + Cᵀ grad) and form the gradients of the matrices.

    Each sample is solved, and its figures are, in units of the power of two at or below the largest
    entry of its Cᵀ grad.

    batch: U, X, the product of X and right (r, m), grad (m, q), the gradient of Y, and the tiles of
        B U and D U that `forward` wrote, or 0 where φ' is a function of φ
    found: what is written
        V and grad, samples last (n + q, m)
        V (m, n)
        the product of V and left, samples last (r, m)
        figures (3, m), as of `forward`
    gradients: those of the matrices are written there, of low rank transposed (r, n)
    limits: of a linear equilibrium: their `phi` is (-1, 1)
    phi: as in the limits of the forward pass
    Returns: how the solve ended
    """
    m, _, n, q, r, _ = sizes
    left, right, _, C, _ = _matrices(matrices, sizes, limits.tol)
    X, grad = at(batch[1], (m, n), limits.tol), at(batch[3], (m, q), limits.tol)
    V, figures = at(found[0], (n + q, m), limits.tol), at(found[3], (3, m), limits.tol)
    rows = at(found[1], (m, n), limits.tol)
    inner = at(found[2], (r, m), limits.tol)
    lanes = TILE_BYTES // X.itemsize
    driven = np.empty((-(-m // lanes), filled(n), lanes), X.dtype)
    in_team(_pull_tiles, (C, grad, driven, V), threads)
    first, then, factor = right, left, left[:, :r]
    if r:
        first, then = left, right.T
    elif is_turned_once(n, len(driven), threads):
        then = strided(turn(left, threads).T)
    adjoint, forward = Map(first, then), Map(right, left.T)
    kept = (len(driven) if batch[4] else 0, filled(n) + filled(q), lanes)
    arguments = at(batch[4], kept, limits.tol)
    given = (adjoint, forward, arguments, factor, X, limits, phi, driven)
    in_team(_adjoint_tiles, (given, (V, rows, inner, figures)), threads)
    sum_up(batch, found, gradients, sizes, limits.tol, threads)
    return ended(figures, limits.tol)


@compiled()
def sum_up(batch: Any, found: Any, gradients: Any, sizes: Any, like: Any, threads: int) -> None:
    """Form the gradients from what `backward` has found; `like` is a number of the arrays' type."""
    m, p, n, q, r, d = sizes
    U, X, inner_X = (
        at(batch[0], (m, p), like),
        at(batch[1], (m, n), like),
        at(batch[2], (r, m), like),
    )
    V, rows, inner_V = (
        at(found[0], (n + q, m), like),
        at(found[1], (m, n), like),
        at(found[2], (r, m), like),
    )
    of_B, of_D = at(gradients[2], (n, p), like), at(gradients[4], (d, p), like)
    of_C, nothing = at(gradients[3], (q, n), like), X[:0]
    in_team(_outer_tiles, (V, U, of_B, of_D), threads)
    if r:
        in_team(_outer_tiles, (V[n:], X, of_C, nothing), threads)
        in_team(_outer_tiles, (inner_X, rows, at(gradients[0], (r, n), like), nothing), threads)
        in_team(_outer_tiles, (inner_V, X, at(gradients[1], (r, n), like), nothing), threads)
    else:
        in_team(_outer_tiles, (V, X, at(gradients[0], (n, n), like), of_C), threads)


@compiled()
def ended(figures: Any, tol: Any) -> int:
    """How a solve has ended: 0, a sample did not converge; 1, all within tol; 2, all within tol
    or, where that is larger, within the rounding error of the number format."""
    how = 1
    for s in range(figures.shape[1]):
        if not figures[0, s] <= figures[1, s]:
            return 0
        if figures[0, s] > tol:
            how = 2
    return how


@compiled()
def _matrices(addresses: Any, sizes: Any, like: Any) -> Any:
    _, p, n, q, r, d = sizes
    return (
        strided(at(addresses[0], (n, r if r else n), like)),
        strided(at(addresses[1], (n, r), like)),
        strided(at(addresses[2], (n, p), like)),
        strided(at(addresses[3], (q, n), like)),
        strided(at(addresses[4], (d, p), like)),
    )


@compiled()
def _drive_tiles(B: Any, D: Any, U: Any, driven: Any, number: int, of: int) -> None:
    """driven = B U and D U. All rows of all tiles are one line of work, of which each thread has an
    equal part."""
    tiles, rows, lanes = driven.shape
    p, upper, pieces = U.shape[1], filled(len(B)), tiles * rows // ROWS
    begin, end = number * pieces // of * ROWS, (number + 1) * pieces // of * ROWS
    first, last = begin // rows, -(-end // rows)
    u = np.zeros((max(0, last - first), _DEPTH, lanes), U.dtype)
    for k in range(0, p, _DEPTH):
        for t in range(first, last):
            load_samples(U[:, k : k + _DEPTH], t * lanes, u[t - first])
        of_B, of_D = B[:, k : k + _DEPTH].T, D[:, k : k + _DEPTH].T
        for panel in range(0, rows, _PANEL):
            for t in range(first, last):
                top = max(panel, begin - t * rows)
                bottom = min(panel + _PANEL, rows, end - t * rows)
                if top >= bottom:
                    continue
                tile = driven[t]
                if k == 0:
                    tile[top:bottom] = 0
                add_product(of_B, u[t - first], top, min(bottom, upper), tile)
                if len(D):
                    add_product(
                        of_D, u[t - first], max(top - upper, 0), bottom - upper, tile[upper:]
                    )


@compiled()
def _solve_tiles(given: Any, found: Any, number: int, of: int) -> None:
    """The equilibria of the tiles `driven`, and what is read out of them."""
    left, right, C, start, limits, driven = given
    X, inner, figures, Y = found
    (_, n), lanes, dtype = X.shape, driven.shape[2], driven.dtype
    rows = filled(n)
    x, before = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    slope, y = np.ones((rows, lanes), dtype), np.zeros((filled(len(C)), lanes), dtype)
    history = room_for_history(rows, x)
    for t in range(number, len(driven), of):
        first, drive, of_D = t * lanes, driven[t, :rows], driven[t, rows:]
        if len(start):
            load_samples(start, first, x)
        else:
            begin(drive, limits.phi, slope, x)
        count, x, before, ended = settle(
            Map(right, left.T), None, drive, slope, limits, FIRST, x, before, history
        )
        note(ended, count, figures, first)
        _note_inner(right, x, inner, first)
        store_samples(x, X, first)
        affine(C.T, x, of_D, y)
        store_samples(y, Y, first)


@compiled()
def _pull_tiles(C: Any, grad: Any, driven: Any, V: Any, number: int, of: int) -> None:
    """driven = Cᵀ grad, and grad in the last rows of V."""
    (q, n), lanes = C.shape, driven.shape[2]
    g, zeros = np.zeros((q, lanes), C.dtype), np.zeros((filled(n), lanes), C.dtype)
    for t in range(number, len(driven), of):
        load_samples(grad, t * lanes, g)
        store(g, V[n:], t * lanes)
        affine(C, g, zeros, driven[t])


@compiled()
def _adjoint_tiles(given: Any, found: Any, number: int, of: int) -> None:
    """The adjoint equilibria of the tiles `driven`. In units of each sample no square in them is
    too large or too small for the number format."""
    adjoint, forward, arguments, factor, X, limits, phi, driven = given
    V, samples, products, figures = found
    (_, n), lanes, dtype = X.shape, driven.shape[2], driven.dtype
    rows = filled(n)
    x, before = np.zeros((rows, lanes), dtype), np.zeros((rows, lanes), dtype)
    slope, history = np.zeros((rows, lanes), dtype), room_for_history(rows, x)
    units = np.ones(lanes, dtype)
    for t in range(number, len(driven), of):
        first, drive = t * lanes, driven[t]
        load_samples(X, first, x)
        if phi[0] < 0:
            for i in range(n):
                for s in range(lanes):
                    slope[i, s] = 1 if x[i, s] > 0 else phi[1]
        else:
            if len(arguments):
                linear_image(forward, arguments[t, :rows], x, slope)
            slope_of_tile(slope, x, phi[0])
            for i in range(n, rows):  # what fills four rows up
                for s in range(lanes):
                    slope[i, s] = 0
        grow(np.zeros(lanes, dtype), units, drive)
        divide(drive, units)
        begin(drive, limits.phi, slope, x)
        count, x, before, ended = settle(
            adjoint, None, drive, slope, limits, FIRST, x, before, history
        )
        note(ended, count, figures, first)
        multiply(x, units)
        _note_inner(factor, x, products, first)
        store(x, V[:n], first)
        store_samples(x, samples, first)


@compiled()
def _note_inner(factor: Any, x: Any, inner: Any, first: int) -> None:
    """Write down the product of a tile and A's inner factor, if A has one."""
    if len(inner):
        product = np.zeros((filled(len(inner)), x.shape[1]), x.dtype)
        add_product(factor, x, _START, len(product), product)
        store(product, inner, first)


@compiled()
def _outer_tiles(W: Any, source: Any, upper: Any, lower: Any, number: int, of: int) -> None:
    """upper (n, p) and lower (q, p) = W source, for W (n + q, m) and source (m, p)."""
    (m, p), lanes, n = source.shape, TILE_BYTES // source.itemsize, len(upper)
    tiles = -(-p // lanes)
    end = (number + 1) * tiles // of
    room = np.zeros((_TILES, min(m, _DEPTH), lanes), source.dtype)
    for left in range(number * tiles // of, end, _TILES):
        x = room[: min(_TILES, end - left)]
        for k in range(0, max(m, 1), _DEPTH):  # once at least: the sum of no samples is 0
            some, weights = source[k : k + _DEPTH], W[:, k : k + _DEPTH]
            for t in range(len(x)):
                load(some, (left + t) * lanes, x[t])
            _add_panels(weights[:n], x, upper, left * lanes, k > 0)
            _add_panels(weights[n:], x, lower, left * lanes, k > 0)


@compiled()
def _add_panels(W: Any, x: Any, target: Any, first: int, again: bool) -> None:
    """target = W x for the tiles x (count, m, lanes), its columns from `first` on; += if again."""
    lanes, (rows, columns) = TILE_BYTES // x.itemsize, target.shape
    sums = np.zeros((_PANEL, lanes), x.dtype)
    for panel in range(0, rows, _PANEL):
        part, weights = target[panel : panel + _PANEL], W[panel : panel + _PANEL].T
        for t in range(len(x)):
            left = first + t * lanes
            whole = len(part) // ROWS * ROWS if left + lanes <= columns else 0
            own = part[:, left : left + lanes]
            if again:
                add_product(weights, x[t], _START, whole, own)
            else:
                product(weights, x[t], _START, whole, own)
            if whole < len(part):  # what does not fill a tile
                sums[:] = 0
                if again:
                    load(part, left, sums)
                add_product(weights, x[t], whole, filled(len(part)), sums)
                store(sums[whole:], part[whole:], left)
