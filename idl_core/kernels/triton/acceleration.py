"""What the Triton programs share: φ and its slope, and the step from one iterate to the next.

The step is Anderson's of window 2, for each sample (row) on its own: Walker and Ni, "Anderson
acceleration for fixed-point iterations", SINUM 49 (2011), in the form with differences. A sample
whose residual has grown takes a plain Picard step. Every tensor is float32, rows are samples.

A loop carries the last differences of images and residuals, not two images and residuals each of
which would only be handed on: every value that a loop carries is computed in each iteration.
Triton's front end carries a name through a loop where its value at the end of the body is not the
one at entry. A name that takes over another's value (r2 = r1) is therefore lost where both begin as
one value, and nothing says so; `tests/kernels/test_ttir.py` looks for what is carried.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def apply_phi(pre, PHI: tl.constexpr):
    """φ; a NaN stays one, which neither tl.maximum nor a comparison the other way round keeps."""
    if PHI == "relu":
        value = tl.where(pre < 0, 0.0, pre)
    elif PHI == "leaky_relu":
        value = tl.where(pre < 0, 0.01 * pre, pre)
    elif PHI == "tanh":
        # The quotient cancels near 0, where the series takes over: its next term is 4e-9 of x.
        square = pre * pre
        series = 17.0 / 315.0 - 62.0 / 2835.0 * square
        series = pre * (1 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * series)))
        value = tl.where(tl.abs(pre) < 0.2, series, 2 * tl.sigmoid(2 * pre) - 1)
    elif PHI == "sigmoid":
        value = tl.sigmoid(pre)
    elif PHI == "silu":
        value = pre * tl.sigmoid(pre)
    else:
        tl.static_assert(PHI == "identity")
        value = pre
    return value


@triton.jit
def slope_at(point, PHI: tl.constexpr):
    """φ' from φ's value or, of silu, from its argument."""
    if PHI == "relu":
        slope = tl.where(point > 0, 1.0, 0.0)
    elif PHI == "leaky_relu":
        slope = tl.where(point > 0, 1.0, 0.01)
    elif PHI == "tanh":
        slope = 1 - point * point
    elif PHI == "sigmoid":
        slope = point * (1 - point)
    elif PHI == "silu":
        sigmoid = tl.sigmoid(point)
        slope = sigmoid * (1 + point * (1 - sigmoid))
    else:
        tl.static_assert(PHI == "identity")
        slope = tl.full(point.shape, 1.0, tl.float32)
    return slope


@triton.jit
def finish(pre, slope, valid, PHI: tl.constexpr, ADJOINT: tl.constexpr):
    """φ(pre) or, in the adjoint, slope ∘ pre; 0 in the padding, which φ may not leave at 0."""
    value = pre * slope if ADJOINT else apply_phi(pre, PHI)
    return tl.where(valid, value, 0.0)


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
def scales(largest_gradient):
    """A power of two near each row's largest gradient, and its inverse.

    The adjoint is linear: a row is solved in units of its own gradient, so that neither its squares
    overflow or vanish nor its tolerance does. Both are exact, and beyond 2^±100 they stay there:
    less than the least is no gradient, and what is not finite stays so.
    """
    within = tl.minimum(tl.maximum(largest_gradient, 2.0**-100), 2.0**100)
    exponent = within.to(tl.int32, bitcast=True) & 0x7F800000
    scale = exponent.to(tl.float32, bitcast=True)
    return scale, (0x7F000000 - exponent).to(tl.float32, bitcast=True)


@triton.jit
def bound(size, limit):
    """What a residual may be: the tolerance or, where larger, the rounding error at that size."""
    ROUNDING: tl.constexpr = 4.0 * 2.0**-23
    return tl.maximum(size * ROUNDING, limit)


@triton.jit
def still_open(residual, limit, real):
    """Which rows go on. A residual that is not finite stays so: such a sample is given up."""
    return real & (residual > limit) & (residual < float("inf"))


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
