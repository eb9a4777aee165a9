"""A whole implicit model and its gradients for few samples, one after another.

As `idl_core.kernels.numba.programs.model`, with the same arguments, for an A that is not of low
rank, and for more activations; the memory of `driven` is not used.
"""

from __future__ import annotations

from typing import Any

from idl_core.kernels.numba.programs.compiled import at, compiled
from idl_core.kernels.numba.programs.model import ended
from idl_core.kernels.numba.programs.picard import (
    FIRST,
    Limits,
    MapOfOne,
    begin,
    note,
    room_for_history,
    settle,
)
from idl_core.kernels.numba.programs.rows import (
    activate,
    add_outer,
    apply,
    fill,
    reads_argument,
    scale,
    slope_of,
    vector,
)
from idl_core.kernels.numba.programs.tiles import copy, largest
from idl_core.kernels.numba.programs.units import unit_of


@compiled(entry=True)
def forward(matrices: Any, batch: Any, found: Any, sizes: Any, limits: Limits, threads: int) -> int:
    """Solve for X and form Y; returns how it ended, as `ended`."""
    m, p, n, q, _, d = sizes
    like, linear = limits.tol, (-1, limits.rounding * 0 + 1)
    A, B = at(matrices[0], (n, n), like), at(matrices[2], (n, p), like)
    C, D = at(matrices[3], (q, n), like), at(matrices[4], (d, p), like)
    U, start = at(batch[0], (m, p), like), at(batch[1], (m if batch[1] else 0, n), like)
    X, figures, Y = (
        at(found[1], (m, n), like),
        at(found[3], (3, m), like),
        at(found[4], (m, q), like),
    )
    of = MapOfOne(A, False, threads)
    u, drive, x, before, y = vector(p, A), vector(n, A), vector(n, A), vector(n, A), vector(q, A)
    zeros, ones = vector(max(n, q), A), vector(max(n, q), A)
    fill(ones, 1)
    history = room_for_history(len(x), x)
    for s in range(m):
        copy(U[s], u, p)
        apply(B, False, u, zeros, linear, ones, drive, threads)
        if len(start):
            copy(start[s], x, n)
        else:
            activate(drive, n, limits.phi, x)
        count, x, before, how = settle(None, of, drive, ones, limits, FIRST, x, before, history)
        note(how, count, figures[:, s : s + 1], 0)
        copy(x, X[s], n)
        if d:
            apply(D, False, u, zeros, linear, ones, y, threads)
        apply(C, False, x, y, linear, ones, y, threads)
        copy(y, Y[s], q)
        fill(y, 0)
    return ended(figures, limits.tol)


@compiled(entry=True)
def backward(
    matrices: Any,
    batch: Any,
    found: Any,
    gradients: Any,
    sizes: Any,
    limits: Limits,
    phi: Any,
    threads: int,
) -> int:
    """Solve V = φ'(X) ∘ (Aᵀ V + Cᵀ grad) and form the gradients; returns how it ended."""
    m, p, n, q, _, d = sizes
    like, linear = limits.tol, (-1, limits.rounding * 0 + 1)
    A, B, C = (
        at(matrices[0], (n, n), like),
        at(matrices[2], (n, p), like),
        at(matrices[3], (q, n), like),
    )
    U, X, grad = (
        at(batch[0], (m, p), like),
        at(batch[1], (m, n), like),
        at(batch[3], (m, q), like),
    )
    V, rows = at(found[0], (n + q, m), like), at(found[1], (m, n), like)
    figures, of = at(found[3], (3, m), like), MapOfOne(A, True, threads)
    g, x, before, slope = vector(q, A), vector(n, A), vector(n, A), vector(n, A)
    u, drive, zeros, ones = vector(p, A), vector(n, A), vector(n, A), vector(n, A)
    fill(ones, 1)
    history = room_for_history(len(x), x)
    for s in range(m):
        copy(grad[s], g, q)
        apply(C, True, g, zeros, linear, ones, drive, threads)
        if reads_argument(phi):
            copy(U[s], u, p)
            copy(X[s], x, n)
            apply(B, False, u, zeros, linear, ones, before, threads)
            apply(A, False, x, before, linear, ones, before, threads)
        unit = A.dtype.type(unit_of(largest(drive)))
        flat, argument = slope.ravel(), before.ravel()
        for i in range(n):
            flat[i] = slope_of(argument[i], X[s, i], phi)
        scale(drive, linear[1] / unit)
        begin(drive, linear, slope, x)
        count, x, before, how = settle(None, of, drive, slope, limits, FIRST, x, before, history)
        note(how, count, figures[:, s : s + 1], 0)
        scale(x, unit)
        copy(x, rows[s], n)
        for i in range(n + q):
            V[i, s] = rows[s, i] if i < n else grad[s, i - n]
    add_outer(V, U, at(gradients[2], (n, p), like), at(gradients[4], (d, p), like), threads)
    add_outer(V, X, at(gradients[0], (n, n), like), at(gradients[3], (q, n), like), threads)
    return ended(figures, limits.tol)
