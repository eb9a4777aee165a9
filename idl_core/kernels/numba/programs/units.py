"""Samples of a tile in units of their own: what solves a linear equation alike at every scale."""

from __future__ import annotations

import math
from typing import Any

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled

# Exponents of the powers of two of which inverses are within float32.
_WIDEST = 126


@compiled()
def unit_of(size: Any) -> float:
    """The power of two at or below a size; 1 for 0 and for what is not finite."""
    if not 0 < size < math.inf:
        return 1.0
    return math.ldexp(1.0, min(max(math.frexp(size)[1] - 1, -_WIDEST), _WIDEST))


@compiled()
def grow(sizes: Any, units: Any, x: Any) -> None:
    """sizes (lanes,) become the largest magnitudes so far of the samples of the tile x, and units
    (lanes,) the powers of two at or below them."""
    lanes = TILE_BYTES // x.itemsize  # known to the compiler, unlike the tile's shape
    for i in range(x.shape[0]):
        for s in range(lanes):
            sizes[s] = max(sizes[s], abs(x[i, s]))
    for s in range(lanes):
        units[s] = unit_of(sizes[s])


@compiled()
def divide(x: Any, units: Any) -> None:
    """x /= units, sample by sample."""
    for i in range(x.shape[0]):
        for s in range(TILE_BYTES // x.itemsize):
            x[i, s] /= units[s]


@compiled()
def multiply(x: Any, units: Any) -> None:
    """x *= units, sample by sample."""
    for i in range(x.shape[0]):
        for s in range(TILE_BYTES // x.itemsize):
            x[i, s] *= units[s]
