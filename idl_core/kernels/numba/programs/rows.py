"""Products of a matrix and the features of one sample, which are beside one another.

Tiles of samples would compute for all of their lanes what one sample needs; a BLAS takes longer to
be called than such a product takes. Vectors are the flat entries of arrays (rows, lanes) as of
tiles: what is beyond their last feature is 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from idl_core.kernels.numba.programs import SMOOTH, TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.team import in_team
from idl_core.kernels.numba.programs.tiles import copy

# Sums in any order: in the one that is written they are not formed by vectors.
_SUMS = {"reassoc", "contract"}
# Numbers of a matrix from which threads share it.
_SHARED = 1 << 18
# One thread of one. As literals they would be compiled as other types.
_FIRST, _ONLY = np.int64(0), np.int64(1)
_TANH, _SIGMOID, _SILU, _GELU = (SMOOTH.index(name) for name in ("tanh", "sigmoid", "silu", "gelu"))
_ROOT, _DENSITY = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


@compiled()
def phi_of(x: Any, phi: Any) -> Any:
    """φ(x), for phi = the place of φ in `SMOOTH` and 0, or -1 and its slope below zero, which is 1
    above."""
    kind, below = phi
    if kind < 0:
        return x if x > 0 else below * x
    if kind == _TANH:
        return math.tanh(x)
    if kind == _GELU:
        return x * (1 + math.erf(x * _ROOT)) / 2
    sigmoid = 1 / (1 + math.exp(-x))
    return sigmoid if kind == _SIGMOID else x * sigmoid


@compiled()
def activate(drive: Any, n: int, phi: Any, out: Any) -> None:
    """out = φ(drive), of n features."""
    given, found = drive.ravel(), out.ravel()
    for i in range(n):
        found[i] = phi_of(given[i], phi)


@compiled()
def slope_of(x: Any, y: Any, phi: Any) -> Any:
    """φ'(x), where φ(x) is y; unless φ is silu or gelu x is not looked at."""
    kind, below = phi
    if kind < 0:
        return 1 if y > 0 else below
    if kind == _TANH:
        return 1 - y * y
    if kind == _SIGMOID:
        return y * (1 - y)
    if kind == _GELU:
        return (1 + math.erf(x * _ROOT)) / 2 + x * math.exp(-x * x / 2) * _DENSITY
    sigmoid = 1 / (1 + math.exp(-x))
    return sigmoid * (1 + x * (1 - sigmoid))


@compiled()
def reads_argument(phi: Any) -> bool:
    """Whether `slope_of` looks at x."""
    return phi[0] == _GELU or phi[0] == _SILU


@compiled()
def add_outer(W: Any, source: Any, upper: Any, lower: Any, threads: int) -> None:
    """upper (n, p) and lower (q, p) = W source, for W (n + q, m), source (m, p) and few samples."""
    in_team(_outer_rows, (W, source, upper, lower), threads if upper.size >= _SHARED else 1)


@compiled()
def _outer_rows(W: Any, source: Any, upper: Any, lower: Any, number: int, of: int) -> None:
    rows, n = len(upper) + len(lower), len(upper)
    for i in range(number * rows // of, (number + 1) * rows // of):
        out = upper[i] if i < n else lower[i - n]
        fill(out, 0)
        for s in range(W.shape[1]):
            weight, row = W[i, s], source[s]
            for j in range(out.size):
                out[j] += weight * row[j]


@compiled()
def vector(n: int, like: Any) -> Any:
    """Zeros for n features."""
    lanes = TILE_BYTES // like.itemsize
    return np.zeros((-(-n // lanes), lanes), like.dtype)


@compiled()
def fill(x: Any, value: Any) -> None:
    """All entries become the value."""
    flat = x.ravel()
    for i in range(flat.size):
        flat[i] = value


@compiled()
def scale(x: Any, by: Any) -> None:
    """x *= by"""
    flat = x.ravel()
    for i in range(flat.size):
        flat[i] *= by


@compiled()
def apply(
    A: Any, turned: bool, x: Any, drive: Any, phi: Any, slope: Any, out: Any, threads: int
) -> None:
    """out = slope ∘ φ(A x + drive), or of Aᵀ where it is `turned`; phi: as of `phi_of`."""
    given = (A, x.ravel(), drive.ravel(), phi, slope.ravel(), out.ravel())
    team = threads if A.size >= _SHARED else 1
    for i in range(A.shape[1 if turned else 0], out.size):
        given[-1][i] = 0
    if turned:
        if team > 1:
            in_team(_columns, given, team)
        else:
            _columns(*given, _FIRST, _ONLY)
    elif team > 1:
        in_team(_rows, given, team)
    else:
        _rows(*given, _FIRST, _ONLY)


@compiled()
def _rows(A: Any, x: Any, drive: Any, phi: Any, slope: Any, out: Any, number: int, of: int) -> None:
    for i in range(number * len(A) // of, (number + 1) * len(A) // of):
        out[i] = phi_of(_dot(A[i], x) + drive[i], phi) * slope[i]


@compiled()
def _columns(
    A: Any, x: Any, drive: Any, phi: Any, slope: Any, out: Any, number: int, of: int
) -> None:
    rows, columns = A.shape
    first, last = number * columns // of, (number + 1) * columns // of
    own = out[first:last]
    copy(drive[first:last], own, last - first)
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
        out[j] = phi_of(out[j], phi) * slope[j]


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
