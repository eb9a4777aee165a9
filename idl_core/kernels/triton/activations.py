"""φ and its slope, in the Triton programs. Every tensor is float32."""

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
