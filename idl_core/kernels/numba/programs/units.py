"""Samples of a tile in units of their own: what solves a linear equation alike at every scale."""

from __future__ import annotations

import math
from typing import Any

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled

# Below, an inverse would overflow in float32.
_LOWEST = -126


@compiled()
def grow(sizes: Any, units: Any, x: Any) -> None:
    """sizes (lanes,) become the largest magnitudes so far of the samples of the tile x, and units
    (lanes,) the powers of two at or below them; 1 for a size of 0 or one that is not finite."""
    lanes = TILE_BYTES // x.itemsize  # known to the compiler, unlike the tile's shape
    for i in range(x.shape[0]):
        for s in range(lanes):
            sizes[s] = max(sizes[s], abs(x[i, s]))
    for s in range(lanes):
        units[s] = 1
        if 0 < sizes[s] < math.inf:
            _, exponent = math.frexp(sizes[s])
            units[s] = math.ldexp(1.0, max(exponent - 1, _LOWEST))


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
