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
from idl_core.kernels.numba.programs.tiles import affine, affine_then, copy, filled
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
    """x ↦ slope ∘ φ(outerᵀ innerᵀ x + drive) of a tile, or φ(outerᵀ x + drive) if inner is empty:
    strided matrices."""

    inner: Any
    outer: Any


class MapOfOne(NamedTuple):
    """The same of one sample alone, whose features are beside one another in the rows of a tile:
    slope ∘ φ(A x + drive).

    matrix: A, contiguous; Aᵀ where it is `turned`
    threads: that apply it together
    """

    matrix: Any
    turned: bool
    threads: int


@compiled()
def room_for_history(rows: int, like: Any) -> Any:
    """Memory for the acceleration of tiles that have so many rows; not touched without need."""
    return np.empty((HISTORY, rows, TILE_BYTES // like.itemsize), like.dtype)


@compiled()
def settle(
    of: Map | None,
    of_one: MapOfOne | None,
    drive: Any,
    slope: Any,
    limits: Limits,
    expected: int,
    x: Any,
    before: Any,
    history: Any,
) -> tuple[int, Any, Any, Ended]:
    """Iterate a map from x: one of tiles, or of a sample alone; the other is None.

    The first iteration that is measured is the one numbered `expected`.

    Returns:
        How many it took; the result, an image of the map; the iterate that it is the image of; how
        it ended. Both tiles are in the memory of x and before.
    """
    lanes, dtype = TILE_BYTES // x.itemsize, x.dtype
    small = _room_for_product(of, x)
    zeros = np.zeros(small.shape, dtype)
    found, last = np.zeros((6, lanes), dtype), np.zeros(lanes, dtype)
    numbers = np.zeros((7, lanes), dtype)
    ended = Ended(numbers[0], numbers[1], numbers[2])
    looks, weights = found[4:], np.zeros((3, lanes), dtype)
    weighing = _Weighing(weights, numbers[3], numbers[4], numbers[5], numbers[6])
    for s in range(lanes):
        weighing.best[s] = weighing.start[s] = inf
    point, image, room = x, before, before
    image_1, image_2, residual_1, residual_2 = history[0], history[1], history[2], history[3]
    count, first = 0, -1  # of the iterations, and before acceleration
    while True:
        _image(of, of_one, small, zeros, drive, slope, limits.phi, point, image)
        count += 1
        if count < expected and count < limits.most:
            point, image = image, point
            continue
        if first < 0:
            look(image, point, looks)
        else:
            residuals_and_products(point, image, residual_1, residual_2, found)
        if of_one is not None:
            _all_lanes(found, 4)
        if not _judge(looks, limits, ended) or count == limits.most:
            break
        if first >= 0:
            residual_1, residual_2 = residual_2, residual_1  # the second became the newest
            _weigh(found, weighing, ended, (count - first) % _TRIAL == 1)
            combine(point, image, image_1, image_2, weighing.weights)
            image, image_1, image_2 = image_2, image, image_1
        elif limits.accelerate and count >= 2 and _is_slow(last, ended):
            first, room = count, image
            _difference(image, point, residual_1)
            copy(residual_1, residual_2, x.size)
            for other in (image_1, image_2, point):
                copy(image, other, x.size)
            image = history[4]
        else:
            copy(looks[0], last, lanes)
            point, image = image, point
    if first >= 0:
        copy(image, room, x.size)
        image = room
    return count, image, point, ended


@compiled()
def _room_for_product(of: Map | None, x: Any) -> Any:
    """Memory for the product of the inner matrix, if any, and x."""
    if of is None:
        return np.zeros((0, TILE_BYTES // x.itemsize), x.dtype)
    else:
        return np.zeros((filled(of.inner.shape[1]), TILE_BYTES // x.itemsize), x.dtype)


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
    of: Map | None,
    of_one: MapOfOne | None,
    small: Any,
    zeros: Any,
    drive: Any,
    slope: Any,
    phi: Any,
    x: Any,
    image: Any,
) -> None:
    """Apply a map, small being memory for the product of inner and x."""
    if of_one is not None:
        apply(of_one.matrix, of_one.turned, x, drive, phi, slope, image, of_one.threads)
    if of is not None:
        if len(small):
            affine(of.inner, x, zeros, small)
            x = small
        if phi[0] < 0:
            affine_then(of.outer, x, drive, phi[1], slope, image)
        else:  # forward, where slopes are 1
            affine_then(of.outer, x, drive, slope[0, 0], slope, image)
            activate_tile(image, phi[0])


@compiled()
def begin(drive: Any, phi: Any, slope: Any, x: Any) -> None:
    """x = slope ∘ φ(drive) of a tile; of a smooth φ slopes are 1."""
    if phi[0] >= 0:
        copy(drive, x, x.size)
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
        affine(of.inner, x, np.zeros(small.shape, x.dtype), small)
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
def _judge(looks: Any, limits: Limits, ended: Ended) -> bool:
    """Fill `ended` from max|image - x| and max|image| of each sample; whether one is open."""
    some = False
    for s in range(looks.shape[1]):
        residual, bound = looks[0, s], max(limits.tol, limits.rounding * looks[1, s])
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
def _difference(x: Any, before: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        for s in range(TILE_BYTES // x.itemsize):
            out[i, s] = x[i, s] - before[i, s]


class _Weighing(NamedTuple):
    """What acceleration knows of each sample (lanes,).

    weights (3, lanes): as of `combine`
    old_old: the square of the difference of residuals before the newest
    best: the smallest residual so far
    start: the residual at the beginning of a trial
    plain: 1 where steps are to be plain
    """

    weights: Any
    old_old: Any
    best: Any
    start: Any
    plain: Any


@compiled()
def _weigh(found: Any, of: _Weighing, ended: Ended, tried: bool) -> None:
    """Weights (w_new, w_old) that minimise |r0 - w_new (r0 - r1) - w_old (r1 - r2)|, and which
    samples go on, from the products of `residuals_and_products`.

    Both are 0, a plain Picard step, where there is no history yet and where steps are to be plain.

    tried: whether a trial has ended
    """
    # The ridge, a few units in the last place, keeps parallel differences apart.
    ridge = found.dtype.type(1) + found.dtype.type(8) * np.finfo(found.dtype).eps
    nothing, one = found.dtype.type(0), found.dtype.type(1)
    for s in range(found.shape[1]):
        old_new, new_new, old_r, new_r = found[0, s], found[1, s], found[2, s], found[3, s]
        residual = ended.residual[s]
        if tried:
            if residual > of.start[s] / 2:
                of.plain[s] = 1
            of.start[s] = residual
        has_old = of.old_old[s] > 0
        old = of.old_old[s] * ridge if has_old else one
        ratio = old_new / old if has_old else nothing
        rest = new_new * ridge - old_new * ratio
        w_new = (new_r - old_r * ratio) / rest if rest > 0 else nothing
        w_old = old_r / old - ratio * w_new if has_old else nothing
        grown = residual > 2 * of.best[s]
        of.best[s] = min(of.best[s], residual)
        safe = abs(w_new) < inf and abs(w_old) < inf and not grown and not of.plain[s]
        of.weights[0, s] = w_new if safe else nothing
        of.weights[1, s] = w_old if safe else nothing
        of.weights[2, s] = ended.open[s]
        of.old_old[s] = new_new
