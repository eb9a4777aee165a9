"""One equilibrium X = φ(X M + D) whose matrix does not fit on chip: M is read by blocks, from L2.

One program owns all n columns of its samples, so that no program waits for another. Iterates,
images and residuals are in scratch memory. Within a pass over the columns a program reads nothing
that it writes, and a barrier ends each pass: what one thread has written others read afterwards.
"""

from __future__ import annotations

import triton
import triton.language as tl

from idl_core.kernels.triton.activations import finish, slope_at
from idl_core.kernels.triton.anderson import mix, rows_of
from idl_core.kernels.triton.stopping import bound, scales, still_open


@triton.jit(do_not_specialize=["m", "max_iter"])
def solve_streamed(
    M,  # (padded, padded), zeros beyond (n, n)
    D,  # drive (m, n)
    START,  # first guess (m, n); None: φ(d)
    POINT,  # in the adjoint, where the slope is taken (m, n)
    SCRATCH,  # (programs, 9, ROWS, padded): x, three images, three residuals, drive, slope
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
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program solves ROWS samples."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, depth = tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    real = row < m
    data_at = row.to(tl.int64)[:, None] * n
    # One scalar address and small offsets: 64-bit addresses of every number fill the registers.
    part = ROWS * padded
    own = SCRATCH + tl.program_id(0).to(tl.int64) * 9 * part
    images, residuals, drives, slopes = own + part, own + 4 * part, own + 7 * part, own + 8 * part
    at = tl.arange(0, ROWS)[:, None] * padded

    if ADJOINT:
        gradient = tl.zeros((ROWS,), tl.float32)
        for first in tl.range(0, padded, COLUMNS, num_stages=1):
            of = first + column[None, :]
            drive = tl.load(D + data_at + of, real[:, None] & (of < n), 0.0).to(tl.float32)
            gradient = tl.maximum(gradient, tl.max(tl.abs(drive), 1))
        scale, inverse = scales(gradient)
    for first in tl.range(0, padded, COLUMNS, num_stages=1):
        of = first + column[None, :]
        valid = real[:, None] & (of < n)
        drive = tl.load(D + data_at + of, valid, 0.0).to(tl.float32)
        if ADJOINT:
            drive *= inverse[:, None]
        tl.store(drives + at + of, drive)
        slope = drive
        if ADJOINT:
            slope = slope_at(tl.load(POINT + data_at + of, valid, 0.0), PHI)
            tl.store(slopes + at + of, slope)
        if START is not None:
            x = tl.load(START + data_at + of, valid, 0.0).to(tl.float32)
        else:
            x = finish(drive, slope, valid, PHI, ADJOINT)
        tl.store(own + at + of, x)
        for slot in tl.static_range(6):  # no history yet
            tl.store(images + slot * part + at + of, tl.zeros((ROWS, COLUMNS), tl.float32))
    tl.debug_barrier()

    old_old = tl.zeros((ROWS,), tl.float32)
    best = tl.full((ROWS,), float("inf"), tl.float32)
    residual = tl.full((ROWS,), float("inf"), tl.float32)
    limit = tl.zeros((ROWS,), tl.float32)
    maps = tl.zeros((ROWS,), tl.int32)
    going = row < m
    count = tl.full((), 0, tl.int32)
    while (count < max_iter) & (tl.max(going.to(tl.int32), 0) > 0):
        # Three take turns: this one is written, the two before are read.
        this, last, before = count % 3 * part, (count + 2) % 3 * part, (count + 1) % 3 * part
        residual = tl.zeros((ROWS,), tl.float32)
        size = tl.zeros((ROWS,), tl.float32)
        old_new = tl.zeros((ROWS,), tl.float32)
        new_new = tl.zeros((ROWS,), tl.float32)
        old_r0 = tl.zeros((ROWS,), tl.float32)
        new_r0 = tl.zeros((ROWS,), tl.float32)
        for first in tl.range(0, padded, COLUMNS, num_stages=1):
            of = first + column[None, :]
            pre = tl.load(drives + at + of)
            for inner in tl.range(0, padded, DEPTH, num_stages=STAGES):
                x = tl.load(own + at + (inner + depth)[None, :])
                rows_of_M = M + tl.cast(inner, tl.int64) * padded
                block = tl.load(rows_of_M + depth[:, None] * padded + of)
                pre = tl.dot(x, block, pre, input_precision=PRECISION)
            slope = pre
            if ADJOINT:
                slope = tl.load(slopes + at + of)
            image = finish(pre, slope, real[:, None] & (of < n), PHI, ADJOINT)
            r0 = image - tl.load(own + at + of)
            r1 = tl.load(residuals + last + at + of)
            r2 = tl.load(residuals + before + at + of)
            tl.store(images + this + at + of, image)
            tl.store(residuals + this + at + of, r0)
            more = rows_of(image, r0, r0 - r1, r1 - r2)
            residual = tl.maximum(residual, more[0])
            size = tl.maximum(size, more[1])
            old_new += more[2]
            new_new += more[3]
            old_r0 += more[4]
            new_r0 += more[5]
        tl.debug_barrier()

        limit = bound(size, tol)
        maps += going.to(tl.int32)
        going = still_open(residual, limit, real)
        plain = (residual > 2 * best).to(tl.int32)
        w_new, w_old = mix(old_old, old_new, new_new, old_r0, new_r0, count, plain)
        best = tl.minimum(best, residual)
        old_old = new_new
        for first in tl.range(0, padded, COLUMNS, num_stages=1):
            of = first + column[None, :]
            g0 = tl.load(images + this + at + of)
            g1 = tl.load(images + last + at + of)
            g2 = tl.load(images + before + at + of)
            faster = g0 - w_new[:, None] * (g0 - g1) - w_old[:, None] * (g1 - g2)
            # A sample that is done stands still until its tile is.
            tl.store(own + at + of, faster, going[:, None] & (of < padded))
        tl.debug_barrier()
        count += 1

    newest = images + (count + 2) % 3 * part
    for first in tl.range(0, padded, COLUMNS, num_stages=1):
        of = first + column[None, :]
        x = tl.load(newest + at + of)
        if ADJOINT:
            x *= scale[:, None]
        tl.store(X + data_at + of, x, real[:, None] & (of < n))
    if ADJOINT:
        residual *= scale
        limit *= scale
    tl.store(FIGURES + row, residual, real)
    tl.store(FIGURES + m + row, limit, real)
    tl.store(FIGURES + 2 * m + row, maps.to(tl.float32), real)
