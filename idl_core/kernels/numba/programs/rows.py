"""Products of a matrix and the features of one sample, which are beside one another.

Tiles of samples would compute for all of their lanes what one sample needs; a BLAS takes longer to
be called than such a product takes. Vectors are the flat entries of arrays (rows, lanes) as of
tiles: what is beyond their last feature is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_core.kernels.numba.programs import TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.team import in_team

# Sums in any order: in the one that is written they are not formed by vectors.
_SUMS = {"reassoc", "contract"}
# Numbers of a matrix from which threads share it.
_SHARED = 1 << 18


@compiled()
def vector(n: int, like: Any) -> Any:
    """Zeros for n features."""
    lanes = TILE_BYTES // like.itemsize
    return np.zeros((-(-n // lanes), lanes), like.dtype)


@compiled()
def apply(
    A: Any, turned: bool, x: Any, drive: Any, below: Any, slope: Any, out: Any, threads: int
) -> None:
    """out = slope ∘ φ(A x + drive), or of Aᵀ where it is `turned`; φ is `below` times what is
    below zero."""
    given = (A, x.ravel(), drive.ravel(), below, slope.ravel(), out.ravel())
    team = threads if A.size >= _SHARED else 1
    out.ravel()[A.shape[1 if turned else 0] :] = 0
    if turned:
        if team > 1:
            in_team(_columns, given, team)
        else:
            _columns(*given, 0, 1)
    elif team > 1:
        in_team(_rows, given, team)
    else:
        _rows(*given, 0, 1)


@compiled()
def _rows(
    A: Any, x: Any, drive: Any, below: Any, slope: Any, out: Any, number: int, of: int
) -> None:
    for i in range(number * len(A) // of, (number + 1) * len(A) // of):
        value = _dot(A[i], x) + drive[i]
        out[i] = (value if value > 0 else below * value) * slope[i]


@compiled()
def _columns(
    A: Any, x: Any, drive: Any, below: Any, slope: Any, out: Any, number: int, of: int
) -> None:
    rows, columns = A.shape
    first, last = number * columns // of, (number + 1) * columns // of
    own = out[first:last]
    own[:] = drive[first:last]
    some, count = np.empty(rows, np.int64), 0
    for i in range(rows):
        if x[i] != 0:  # of an adjoint of ReLU half of the entries are
            some[count] = i
            count += 1
    for k in range(0, count - 3, 4):
        a, b, c, d = some[k], some[k + 1], some[k + 2], some[k + 3]
        weights = x[a], x[b], x[c], x[d]
        given = A[a, first:last], A[b, first:last], A[c, first:last], A[d, first:last]
        _add_four(own, weights, given[0], given[1], given[2], given[3])
    for k in range(count // 4 * 4, count):
        i = some[k]
        row, weight = A[i, first:last], x[i]
        for j in range(own.size):
            own[j] += weight * row[j]
    for j in range(first, last):
        out[j] = (out[j] if out[j] > 0 else below * out[j]) * slope[j]


@compiled(fastmath=_SUMS)
def _add_four(out: Any, weights: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    w, x, y, z = weights
    for j in range(out.size):
        out[j] += w * a[j] + x * b[j] + y * c[j] + z * d[j]


@compiled(fastmath=_SUMS)
def _dot(row: Any, x: Any) -> Any:
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j] * x[j]
    return total
