"""One equilibrium X = φ(X M + D) whose matrix does not fit on chip: M is read by blocks, from L2.

One program owns all n columns of its samples, so that no program waits for another. Iterates,
images and residuals are in scratch memory. Within a pass over the columns a program reads nothing
that it writes, and a barrier ends each pass: what one thread has written others read afterwards.
"""

from __future__ import annotations

import triton
import triton.language as tl

from idl_core.kernels.fused.acceleration import (
    bound,
    finish,
    largest,
    mix,
    products,
    slope_at,
    still_open,
)


@triton.jit(do_not_specialize=["m", "max_iter"])
def solve_streamed(
    M,
    stride_i,
    stride_j,
    D,  # drive (m, n)
    START,  # first guess (m, n); None: φ(d)
    POINT,  # in the adjoint, where the slope is taken (m, n)
    SCRATCH,  # (7, m rounded up to ROWS, padded): x, three images, three residuals
    X,  # out (m, n)
    FIGURES,  # out (3, m): residual, its bound, maps
    tol,
    max_iter,
    m,
    n,
    padded,  # n rounded up to COLUMNS
    PHI: tl.constexpr,
    ADJOINT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,  # of a block of M; divides COLUMNS
    PRECISION: tl.constexpr,
):
    """One program solves ROWS samples."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, depth = tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    real = row < m
    row = row.to(tl.int64)
    part = tl.num_programs(0).to(tl.int64) * ROWS * padded
    x_at = SCRATCH + row[:, None] * padded
    data_at = row[:, None] * n

    unit = 1.0
    if ADJOINT:
        unit = 0.0
    for first in range(0, n, COLUMNS):
        of = first + column[None, :]
        valid = real[:, None] & (of < n)
        drive = tl.load(D + data_at + of, valid, 0.0).to(tl.float32)
        slope = drive
        if ADJOINT:
            unit = tl.maximum(unit, tl.max(tl.abs(drive)))
            slope = slope_at(tl.load(POINT + data_at + of, valid, 0.0), PHI)
        if START is not None:
            x = tl.load(START + data_at + of, valid, 0.0).to(tl.float32)
        else:
            x = finish(drive, slope, valid, PHI, ADJOINT)
        tl.store(x_at + of, x)
    tl.debug_barrier()

    old_old = tl.zeros((ROWS,), tl.float32)
    best = tl.full((ROWS,), float("inf"), tl.float32)
    residual = best
    limit = old_old
    maps = tl.zeros((ROWS,), tl.int32)
    going = real
    count = tl.full((), 0, tl.int32)
    while (count < max_iter) & (tl.max(going.to(tl.int32), 0) > 0):
        # Three take turns: this one is written, the two before are read.
        g0 = x_at + (1 + count % 3) * part
        g1 = x_at + (1 + (count + 2) % 3) * part
        g2 = x_at + (1 + (count + 1) % 3) * part
        has1 = count >= 1
        has2 = count >= 2
        residual = tl.zeros((ROWS,), tl.float32)
        size = residual
        old_new = residual
        new_new = residual
        old_r = residual
        new_r = residual
        for first in range(0, n, COLUMNS):
            of = first + column[None, :]
            valid = real[:, None] & (of < n)
            pre = tl.load(D + data_at + of, valid, 0.0).to(tl.float32)
            slope = pre
            if ADJOINT:
                slope = slope_at(tl.load(POINT + data_at + of, valid, 0.0), PHI)
            for inner in range(0, n, DEPTH):
                i = inner + depth
                x = tl.load(x_at + i[None, :])
                inside = (i < n)[:, None] & (of < n)
                block = tl.load(M + i[:, None] * stride_i + of * stride_j, inside, 0.0)
                pre = tl.dot(x, block.to(tl.float32), pre, input_precision=PRECISION)
            image = finish(pre, slope, valid, PHI, ADJOINT)
            r0 = image - tl.load(x_at + of)
            r1 = tl.load(g1 + 3 * part + of, has1, 0.0)
            r2 = tl.load(g2 + 3 * part + of, has2, 0.0)
            tl.store(g0 + of, image)
            tl.store(g0 + 3 * part + of, r0)
            residual = tl.maximum(residual, largest(tl.abs(r0)))
            size = tl.maximum(size, largest(tl.abs(image)))
            more = products(r0, r1, r2)
            old_new += more[0]
            new_new += more[1]
            old_r += more[2]
            new_r += more[3]
        tl.debug_barrier()

        limit = bound(size, tol * unit)
        maps += going.to(tl.int32)
        going = still_open(residual, limit, real)
        plain = (residual > 2 * best).to(tl.int32)
        w_new, w_old = mix(old_old, old_new, new_new, old_r, new_r, count, plain)
        best = tl.minimum(best, residual)
        old_old = new_new
        for first in range(0, n, COLUMNS):
            of = first + column[None, :]
            image = tl.load(g0 + of)
            before = tl.load(g1 + of, has1, 0.0)
            faster = image - w_new[:, None] * (image - before)
            faster -= w_old[:, None] * (before - tl.load(g2 + of, has2, 0.0))
            # A sample that is done stands still until its tile is.
            tl.store(x_at + of, faster, going[:, None] & (of < padded))
        tl.debug_barrier()
        count += 1

    newest = x_at + (1 + (count + 2) % 3) * part
    for first in range(0, n, COLUMNS):
        of = first + column[None, :]
        tl.store(X + data_at + of, tl.load(newest + of), real[:, None] & (of < n))
    tl.store(FIGURES + row, residual, real)
    tl.store(FIGURES + m + row, limit, real)
    tl.store(FIGURES + 2 * m + row, maps.to(tl.float32), real)
