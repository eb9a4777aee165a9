"""When a Triton program stops a sample: the test of its residual against its tolerance.

Rows are samples, and each is tested on its own.
"""

from __future__ import annotations

import triton
import triton.language as tl


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
