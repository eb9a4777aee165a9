"""How large the rows of a matrix are, in one pass over it."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_core.kernels.numba.programs.compiled import at, compiled


@compiled(entry=True)
def rows_within(address: int, shape: Any, radius: float, like: Any) -> bool:
    """Whether no row of the contiguous matrix has a larger sum of magnitudes than `radius`."""
    A = at(address, shape, like)
    sums = np.empty(shape[0], A.dtype)
    for i in range(shape[0]):
        sums[i] = _sum(A[i])
    return bool((sums <= radius).all())


@compiled(entry=True)
def columns_within(address: int, shape: Any, radius: float, like: Any) -> bool:
    """The same of columns."""
    A = at(address, shape, like)
    sums = np.zeros(shape[1], A.dtype)
    for i in range(shape[0]):
        for j in range(shape[1]):
            sums[j] += abs(A[i, j])
    return bool((sums <= radius).all())


# In any order: in the one that is written it cannot be summed up by vectors.
@compiled(fastmath={"reassoc"})
def _sum(row: Any) -> Any:
    # By index: what iterates over the entries themselves is not summed up by vectors either.
    total = row.dtype.type(0)
    for j in range(row.size):
        total += abs(row[j])
    return total
