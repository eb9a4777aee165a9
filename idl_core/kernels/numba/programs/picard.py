"""The equilibria of one tile of samples: Picard iteration, accelerated where it is slow.

Acceleration is Anderson's of window 2, for each sample on its own: Walker and Ni, "Anderson
acceleration for fixed-point iterations", SINUM 49 (2011), in the form with differences. A sample
whose residual has grown, or that acceleration has not helped within a trial, takes plain Picard
steps, which are safe for a contraction. A sample that is not finite is given up; the others of its
tile go on.
"""

from __future__ import annotations

from math import inf, log
from typing import Any, NamedTuple

import numpy as np

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.rows import apply
from idl_core.kernels.numba.programs.smooth import activate_tile
from idl_core.kernels.numba.programs.tiles import affine, affine_then, filled
from idl_core.kernels.numba.programs.vectors import combine, look, residuals_and_products

# What `settle` expects where nothing is known. As a literal it would be compiled as another type.
FIRST = np.int64(1)
# Tiles of history that acceleration needs: three images and two residuals.
HISTORY = 5
# Predicted further Picard iterations from which acceleration takes fewer, at its own price.
_SLOW = 8.0
# Iterations within which acceleration must halve the residual of a sample, as in `Picard`.
_TRIAL = 20


class Limits(NamedTuple):
    """How an equilibrium is iterated, all numbers but `most` of the arrays' own type.

    tol: bound on the change of every entry
    relative: the bound is in units of the largest drive
    rounding: the rounding error of a number of size 1
    most: iterations
    phi: -1 and the slope of φ below zero, which is 1 above, or the place of φ in `SMOOTH` and 0
    accelerate: whether to, where Picard iteration is slow
    """

    tol: Any
    relative: bool
    rounding: Any
    most: int
    phi: tuple[int, Any]
    accelerate: bool


class Ended(NamedTuple):
    """How the iteration of a tile ended: of each sample (lanes,) its residual, the bound on it, and
    1 where it has neither converged nor been given up."""

    residual: Any
    bound: Any
    open: Any


class Map(NamedTuple):
    """x ↦ slope ∘ φ(outerᵀ innerᵀ x + drive) of a tile, or φ(outerᵀ x + drive) if inner is empty.

    Of one sample alone a tile is the sample itself, its features beside one another: then `matrix`
    is A (n, n), which is not empty, and the map is slope ∘ φ(A x + drive), or of Aᵀ.

    inner, outer: strided matrices
    matrix: contiguous
    turned: whether it is Aᵀ that is applied
    threads: that apply it together
    """

    inner: Any
    outer: Any
    matrix: Any
    turned: bool
    threads: int


@compiled()
def of_tiles(inner: Any, outer: Any) -> Map:
    """The map of tiles of samples."""
    return Map(inner, outer, np.empty((0, 0), outer.dtype), False, 1)


@compiled()
def room_for_history(rows: int, like: Any) -> Any:
    """Memory for the acceleration of tiles that have so many rows; not touched without need."""
    return np.empty((HISTORY, rows, TILE_BYTES // like.itemsize), like.dtype)


@compiled()
def settle(
    of: Map,
    drive: Any,
    slope: Any,
    limits: Limits,
    tol: Any,
    expected: int,
    x: Any,
    before: Any,
    history: Any,
) -> tuple[int, Any, Any, Ended]:
    """Iterate a map from x.

    The first iteration that is measured is the one numbered `expected`.

    Returns:
        How many it took; the result, an image of the map; the iterate that it is the image of; how
        it ended. Both tiles are in the memory of x and before.
    """
    lanes = TILE_BYTES // x.itemsize
    small = np.zeros((filled(of.inner.shape[1]), lanes), x.dtype)
    zeros = np.zeros_like(small)
    looks, last = np.zeros((2, lanes), x.dtype), np.zeros(lanes, x.dtype)
    ended = Ended(last.copy(), last.copy(), last.copy())
    count = 0
    while count < limits.most:
        x, before = before, x
        _image(of, small, zeros, drive, slope, limits.phi, before, x)
        count += 1
        if count < expected and count < limits.most:
            continue
        look(x, before, looks)
        if len(of.matrix):
            _all_lanes(looks, 0)
        if not _judge(looks, tol, limits.rounding, ended):
            break
        if limits.accelerate and count >= 2 and _is_slow(last, ended):
            given = (of, small, zeros, drive, slope)
            count = _accelerate(given, limits, tol, count, x, before, history, ended)
            break
        last[:] = looks[0]
    return count, x, before, ended


@compiled()
def note(ended: Ended, count: int, figures: Any, first: int) -> None:
    """Write down in figures (3, m) how the samples of a tile ended, the first of which has that
    number: the residual, the bound on it, and the iterations."""
    for s in range(min(ended.residual.size, figures.shape[1] - first)):
        figures[0, first + s] = ended.residual[s]
        figures[1, first + s] = ended.bound[s]
        figures[2, first + s] = count


@compiled()
def _image(
    of: Map, small: Any, zeros: Any, drive: Any, slope: Any, phi: Any, x: Any, image: Any
) -> None:
    """Apply a map, small being memory for the product of inner and x."""
    if len(of.matrix):
        apply(of.matrix, of.turned, x, drive, phi, slope, image, of.threads)
        return
    if len(small):
        affine(of.inner, x, zeros, small)
        x = small
    if phi[0] < 0:
        affine_then(of.outer, x, drive, phi[1], slope, image)
    else:  # forward, where slopes are 1
        affine(of.outer, x, drive, image)
        activate_tile(image, phi[0])


@compiled()
def begin(drive: Any, phi: Any, slope: Any, x: Any) -> None:
    """x = slope ∘ φ(drive) of a tile; of a smooth φ slopes are 1."""
    if phi[0] >= 0:
        x[:] = drive
        activate_tile(x, phi[0])
        return
    for i in range(x.shape[0]):
        for s in range(TILE_BYTES // x.itemsize):
            value = drive[i, s]
            x[i, s] = (value if value > 0 else phi[1] * value) * slope[i, s]


@compiled()
def linear_image(of: Map, drive: Any, x: Any, image: Any) -> None:
    """The map of a tile without its slope and φ."""
    small = np.zeros((filled(of.inner.shape[1]), x.shape[1]), x.dtype)
    if len(small):
        affine(of.inner, x, np.zeros_like(small), small)
        x = small
    affine(of.outer, x, drive, image)


@compiled()
def _all_lanes(found: Any, sums: int) -> None:
    """Each of the first `sums` rows becomes its sum, of the others its largest entry, where lanes
    are features of one sample."""
    for i in range(found.shape[0]):
        value = found[i, 0]
        for s in range(1, found.shape[1]):
            if i < sums:
                value += found[i, s]
            elif not found[i, s] <= value:  # what is not a number stays
                value = found[i, s]
        found[i] = value


@compiled()
def _judge(looks: Any, tol: Any, rounding: Any, ended: Ended) -> bool:
    """Fill `ended` from max|image - x| and max|image| of each sample; whether one is open."""
    some = False
    for s in range(looks.shape[1]):
        residual, bound = looks[0, s], max(tol, rounding * looks[1, s])
        ended.residual[s], ended.bound[s] = residual, bound
        is_open = residual > bound and residual < inf
        ended.open[s] = is_open
        some |= is_open
    return some


@compiled()
def _is_slow(last: Any, ended: Ended) -> bool:
    """Whether a sample needs many more iterations, at the rate of the last one."""
    for s in range(last.size):
        if ended.open[s]:
            # Less than no progress is as slow as none.
            gained = log(max(last[s] / ended.residual[s], 1.0 + 1e-6))
            if ended.bound[s] <= 0 or log(ended.residual[s] / ended.bound[s]) > _SLOW * gained:
                return True
    return False


@compiled()
def _accelerate(
    given: Any,
    limits: Limits,
    tol: Any,
    count: int,
    x: Any,
    before: Any,
    history: Any,
    ended: Ended,
) -> int:
    """Go on from x, the image of `before`, to as many iterations as it then were in all.

    In the end x is the newest image, and `before` is what it is the image of.
    """
    of, small, zeros, drive, slope = given
    lanes = TILE_BYTES // x.itemsize
    g1, g2, image, r1, r2 = history[0], history[1], history[2], history[3], history[4]
    point = before
    _difference(x, before, r1)
    g1[:], g2[:], r2[:] = x, x, r1
    point[:] = x
    found, weights = np.zeros((6, lanes), x.dtype), np.zeros((3, lanes), x.dtype)
    old_old, best = np.zeros(lanes, x.dtype), np.full(lanes, x.dtype.type(inf))
    start, plain = best.copy(), np.zeros(lanes, x.dtype)
    first = count
    while count < limits.most:
        _image(of, small, zeros, drive, slope, limits.phi, point, image)
        count += 1
        residuals_and_products(point, image, r1, r2, found)  # r2 becomes the newest residual
        if len(of.matrix):
            _all_lanes(found, 4)
        if not _judge(found[4:], tol, limits.rounding, ended) or count == limits.most:
            break
        if (count - first) % _TRIAL == 1:
            for s in range(lanes):
                if ended.residual[s] > start[s] / 2:
                    plain[s] = 1
                start[s] = ended.residual[s]
        _weigh(found, old_old, best, plain, ended.open, weights)
        combine(point, image, g1, g2, weights)
        r1, r2 = r2, r1
        image, g1, g2 = g2, image, g1
    x[:] = image
    return count


@compiled()
def _difference(x: Any, before: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        for s in range(TILE_BYTES // x.itemsize):
            out[i, s] = x[i, s] - before[i, s]


@compiled()
def _weigh(found: Any, old_old: Any, best: Any, plain: Any, is_open: Any, weights: Any) -> None:
    """Weights (w_new, w_old) that minimise |r0 - w_new (r0 - r1) - w_old (r1 - r2)|, and which
    samples go on, from the products of `residuals_and_products`.

    Both are 0, a plain Picard step, where there is no history yet and where steps are to be plain.
    """
    # The ridge, a few units in the last place, keeps parallel differences apart.
    ridge = found.dtype.type(1) + found.dtype.type(8) * np.finfo(found.dtype).eps
    nothing, one = found.dtype.type(0), found.dtype.type(1)
    for s in range(weights.shape[1]):
        old_new, new_new, old_r, new_r = found[0, s], found[1, s], found[2, s], found[3, s]
        residual = found[4, s]
        has_old = old_old[s] > 0
        old = old_old[s] * ridge if has_old else one
        ratio = old_new / old if has_old else nothing
        rest = new_new * ridge - old_new * ratio
        w_new = (new_r - old_r * ratio) / rest if rest > 0 else nothing
        w_old = old_r / old - ratio * w_new if has_old else nothing
        grown = residual > 2 * best[s]
        best[s] = min(best[s], residual)
        safe = abs(w_new) < inf and abs(w_old) < inf and not grown and not plain[s]
        weights[0, s] = w_new if safe else nothing
        weights[1, s] = w_old if safe else nothing
        weights[2, s] = is_open[s]
        old_old[s] = new_new
