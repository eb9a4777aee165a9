"""Anderson acceleration of window 2, in the Triton programs: from one iterate to the next.

Each sample (row) is accelerated on its own: Walker and Ni, "Anderson acceleration for fixed-point
iterations", SINUM 49 (2011), in the form with differences. A sample whose residual has grown takes
a plain Picard step. Every tensor is float32, rows are samples.

A loop carries the last differences of images and residuals, not two images and residuals each of
which would only be handed on: every value that a loop carries is computed in each iteration.
Triton's front end carries a name through a loop where its value at the end of the body is not the
one at entry. A name that takes over another's value (r2 = r1) is therefore lost where both begin as
one value, and nothing says so; `tests/kernels/test_ttir.py` looks for what is carried.
"""

from __future__ import annotations

import triton
import triton.language as tl

from idl_core.kernels.triton.stopping import bound, still_open


@triton.jit
def _magnitude(value):
    """|value|; a NaN, which a maximum would pass over, counts as infinite."""
    return tl.where(value == value, tl.abs(value), float("inf"))


@triton.jit
def _combined(max_a, max_b, sum_a, sum_b, sum_c, sum_d, more_a, more_b, and_a, and_b, and_c, and_d):
    return (
        tl.maximum(max_a, more_a),
        tl.maximum(max_b, more_b),
        sum_a + and_a,
        sum_b + and_b,
        sum_c + and_c,
        sum_d + and_d,
    )


@triton.jit
def rows_of(g0, r0, new, old):
    """What an iteration is judged and continued by, of each row, in one reduction: where a row lies
    across warps, each of its own would wait for the others twice.

    Args:
        g0, r0: the image and the residual.
        new, old: the residual's difference to the one before, and the difference before that.

    Returns:
        The largest |r0| and |g0|; <old, new>, <new, new>, <old, r0>, <new, r0>.
    """
    parts = (_magnitude(r0), _magnitude(g0), old * new, new * new, old * r0, new * r0)
    return tl.reduce(parts, 1, _combined)


@triton.jit
def mix(old_old, old_new, new_new, old_r0, new_r0, count, plain):
    """Weights (w_new, w_old) that minimise |r0 - w_new new - w_old old| of each row.

    Both are 0, a plain Picard step, where there is no history yet and in the rows marked `plain`.
    """
    # The ridge, a few units in the last place, keeps parallel differences apart.
    RIDGE: tl.constexpr = 1.0 + 2.0**-20
    has_old = (count >= 2) & (old_old > 0)
    old = tl.where(has_old, old_old * RIDGE, 1.0)
    ratio = tl.where(has_old, old_new / old, 0.0)
    rest = new_new * RIDGE - old_new * ratio
    has_new = (count >= 1) & (rest > 0)
    w_new = tl.where(has_new, (new_r0 - old_r0 * ratio) / tl.where(has_new, rest, 1.0), 0.0)
    w_old = tl.where(has_old, old_r0 / old - ratio * w_new, 0.0)
    safe = (tl.abs(w_new) < float("inf")) & (tl.abs(w_old) < float("inf")) & (plain == 0)
    return tl.where(safe, w_new, 0.0), tl.where(safe, w_old, 0.0)


@triton.jit
def advance(x, g0, g1, r1, old_g, old_r, old_old, best, count, tol, real):
    """From the iterate x and its image g0 to the next iterate, for rows that fit on chip.

    Args:
        g1, r1: the image and the residual before.
        old_g, old_r: their differences to the ones before them, and <old_r, old_r> in old_old.
        best: the smallest size of a residual so far.

    Returns:
        The next iterate, in which a row that is done stands still until its tile is; the residual
        r0; the differences g0 - g1 and r0 - r1, and the square of the latter; the best size so far;
        the sizes of r0, the bounds on these, and which rows go on.
    """
    r0 = g0 - x
    new_g, new_r = g0 - g1, r0 - r1
    residual, size, old_new, new_new, old_r0, new_r0 = rows_of(g0, r0, new_r, old_r)
    limit = bound(size, tol)
    going = still_open(residual, limit, real)
    plain = (residual > 2 * best).to(tl.int32)
    w_new, w_old = mix(old_old, old_new, new_new, old_r0, new_r0, count, plain)
    faster = g0 - w_new[:, None] * new_g - w_old[:, None] * old_g
    x = tl.where(going[:, None], faster, x)
    return x, r0, new_g, new_r, new_new, tl.minimum(best, residual), residual, limit, going
