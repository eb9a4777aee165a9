"""The equilibrium X = φ(X R Lᵀ + D) by way of the r numbers y = X R of each sample.

y = φ(y Lᵀ + D) R is iterated on chip; L, R and D are read by blocks. The adjoint is the same with
L and R exchanged and φ a product with the slopes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from idl_core.kernels.triton.activations import finish, slope_at
from idl_core.kernels.triton.anderson import advance
from idl_core.kernels.triton.stopping import scales


@triton.jit
def _states(
    y, inverse, L, D, POINT, row, of, m, n, r, number, PHI: tl.constexpr, ADJOINT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """φ(y Lᵀ + D) of the columns `of`; in the adjoint D is taken times `inverse`."""
    valid = (row < m)[:, None] & (of < n)[None, :]
    at = row[:, None] * n + of[None, :]
    left = tl.load(
        L + of[None, :] * r + number[:, None], (of < n)[None, :] & (number < r)[:, None], 0.0
    )
    drive = tl.load(D + at, valid, 0.0).to(tl.float32)
    slope = drive
    if ADJOINT:
        drive *= inverse[:, None]
        slope = slope_at(tl.load(POINT + at, valid, 0.0), PHI)
    pre = tl.dot(y, left.to(tl.float32), drive, input_precision=PRECISION)
    return finish(pre, slope, valid, PHI, ADJOINT)


@triton.jit(do_not_specialize=["m", "max_iter"])
def solve_low_rank(
    L,  # (n, r)
    R,  # (n, r)
    D,  # drive (m, n)
    START,  # first guess of y (m, r); None: 0
    POINT,  # in the adjoint, where the slope is taken (m, n)
    X,  # out (m, n)
    Y,  # out (m, r)
    FIGURES,  # out (3, m): residual of y, its bound, maps
    tol,
    max_iter,
    m,
    n,
    r,
    PHI: tl.constexpr,
    ADJOINT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program solves ROWS samples."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, number = tl.arange(0, COLUMNS), tl.arange(0, RANK)
    real = row < m
    row = row.to(tl.int64)
    y_valid = real[:, None] & (number < r)[None, :]
    y_at = row[:, None] * r + number[None, :]

    scale = tl.full((ROWS,), 1.0, tl.float32)
    inverse = tl.full((ROWS,), 1.0, tl.float32)
    if ADJOINT:
        gradient = tl.zeros((ROWS,), tl.float32)
        for first in tl.range(0, n, COLUMNS, num_stages=1):
            of = first + column[None, :]
            drive = tl.load(D + row[:, None] * n + of, real[:, None] & (of < n), 0.0)
            gradient = tl.maximum(gradient, tl.max(tl.abs(drive.to(tl.float32)), 1))
        scale, inverse = scales(gradient)

    y = tl.zeros((ROWS, RANK), tl.float32)
    if START is not None:
        y = tl.load(START + y_at, y_valid, 0.0).to(tl.float32)
    # The newest image of the map is in the end the solution.
    g1 = tl.zeros((ROWS, RANK), tl.float32)
    r1 = tl.zeros((ROWS, RANK), tl.float32)
    old_g = tl.zeros((ROWS, RANK), tl.float32)
    old_r = tl.zeros((ROWS, RANK), tl.float32)
    old_old = tl.zeros((ROWS,), tl.float32)
    best = tl.full((ROWS,), float("inf"), tl.float32)
    residual = tl.full((ROWS,), float("inf"), tl.float32)
    limit = tl.zeros((ROWS,), tl.float32)
    maps = tl.zeros((ROWS,), tl.int32)
    going = row < m
    count = tl.full((), 0, tl.int32)
    while (count < max_iter) & (tl.max(going.to(tl.int32), 0) > 0):
        g0 = tl.zeros((ROWS, RANK), tl.float32)
        for first in tl.range(0, n, COLUMNS, num_stages=1):
            of = first + column
            x = _states(y, inverse, L, D, POINT, row, of, m, n, r, number, PHI, ADJOINT, PRECISION)
            inside = (of < n)[:, None] & (number < r)[None, :]
            right = tl.load(R + of[:, None] * r + number[None, :], inside, 0.0)
            g0 = tl.dot(x, right.to(tl.float32), g0, input_precision=PRECISION)
        maps += going.to(tl.int32)
        y, r1, old_g, old_r, old_old, best, residual, limit, going = advance(
            y, g0, g1, r1, old_g, old_r, old_old, best, count, tol, real
        )
        g1 = g0
        count += 1

    for first in tl.range(0, n, COLUMNS, num_stages=1):
        of = first + column
        x = _states(g1, inverse, L, D, POINT, row, of, m, n, r, number, PHI, ADJOINT, PRECISION)
        if ADJOINT:
            x *= scale[:, None]
        tl.store(X + row[:, None] * n + of[None, :], x, real[:, None] & (of < n)[None, :])
    if ADJOINT:
        g1 *= scale[:, None]
        residual *= scale
        limit *= scale
    tl.store(Y + y_at, g1, y_valid)
    tl.store(FIGURES + row, residual, real)
    tl.store(FIGURES + m + row, limit, real)
    tl.store(FIGURES + 2 * m + row, maps.to(tl.float32), real)
