"""Equilibria in a row with their matrix on chip; of one equilibrium alone, a row of one.

    s_j = φ(s_j M + c_j E + d_j)            the equilibrium of step j: n numbers a sample
    c_{j+1} = s_j K + c_j F + a_j           what is carried on: k numbers, k may be 0

W = [[M, K], [E, F]] is one matrix (n + k, n + k). In the adjoint, which runs from the last step to
the first, W is its transpose and φ is a product with the slopes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from idl_core.kernels.triton.activations import finish, slope_at
from idl_core.kernels.triton.anderson import advance
from idl_core.kernels.triton.stopping import scales


@triton.jit
def _block(W, stride_i, stride_j, row, height, column, width, H: tl.constexpr, WD: tl.constexpr):
    """W[row : row + height, column : column + width], with zeros to (H, WD)."""
    i, j = tl.arange(0, H)[:, None], tl.arange(0, WD)[None, :]
    at = W + (row + i) * stride_i + (column + j) * stride_j
    return tl.load(at, (i < height) & (j < width), 0.0).to(tl.float32)


@triton.jit(do_not_specialize=["m", "steps", "max_iter"])
def solve_chain(
    W,
    stride_i,
    stride_j,
    D,  # drive (steps, m, n); None: 0
    d_step,
    d_row,
    ADDED,  # (steps, m, k); None: 0
    a_step,
    a_row,
    START,  # c_0 (m, k) or, where k = 0, the first guess of s (m, n); None: 0 or φ(d)
    POINT,  # in the adjoint, where the slope is taken (steps, m, ...)
    p_step,
    p_row,
    CHAIN,  # out (steps + 1, m, n + k): s_j and c_j; (1, m, n) where k = 0
    FIGURES,  # out (3, m): worst residual, its bound, most maps
    tol,
    max_iter,
    m,
    n,
    k,
    steps,
    PHI: tl.constexpr,
    ADJOINT: tl.constexpr,
    CARRY: tl.constexpr,  # k > 0
    N: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program solves ROWS samples, all steps of them."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    of_s, of_c = tl.arange(0, N), tl.arange(0, K)
    real = row < m
    s_valid = real[:, None] & (of_s < n)[None, :]
    c_valid = real[:, None] & (of_c < k)[None, :]
    row = row.to(tl.int64)
    width = n + k
    s_at = row[:, None] * width + of_s[None, :]
    c_at = row[:, None] * width + n + of_c[None, :]

    s_to_s = _block(W, stride_i, stride_j, 0, n, 0, n, N, N)
    if CARRY:
        c_to_s = _block(W, stride_i, stride_j, n, k, 0, n, K, N)
        s_to_c = _block(W, stride_i, stride_j, 0, n, n, k, N, K)
        c_to_c = _block(W, stride_i, stride_j, n, k, n, k, K, K)
        c = tl.load(START + row[:, None] * k + of_c[None, :], c_valid, 0.0).to(tl.float32)
    s = tl.zeros((ROWS, N), tl.float32)
    slope = tl.zeros((ROWS, N), tl.float32)
    worst = tl.full((ROWS,), -float("inf"), tl.float32)
    worst_limit = tl.zeros((ROWS,), tl.float32)
    most = tl.zeros((ROWS,), tl.int32)
    gradient = tl.zeros((ROWS,), tl.float32)  # the largest that has reached the row

    for j in range(steps):
        t = tl.full((), j, tl.int64)
        if ADJOINT:
            t = steps - 1 - t
        slot = t
        if ADJOINT and CARRY:
            slot = t + 1  # what the last step carries on comes before all of them
        drive = tl.zeros((ROWS, N), tl.float32)
        if D is not None:
            at = D + t * d_step + row[:, None] * d_row + of_s[None, :]
            drive = tl.load(at, s_valid, 0.0).to(tl.float32)
        if CARRY:
            drive = tl.dot(c, c_to_s, drive, input_precision=PRECISION)
            tl.store(CHAIN + slot * m * width + c_at, c, c_valid)
        if ADJOINT:
            gradient = tl.maximum(gradient, tl.max(tl.abs(drive), 1))
            scale, inverse = scales(gradient)
            drive *= inverse[:, None]
            at = POINT + t * p_step + row[:, None] * p_row + of_s[None, :]
            slope = slope_at(tl.load(at, s_valid, 0.0), PHI)
        if CARRY:
            x = s
            if ADJOINT:
                x *= inverse[:, None]
        elif START is not None:
            x = tl.load(START + row[:, None] * n + of_s[None, :], s_valid, 0.0).to(tl.float32)
        else:
            x = finish(drive, slope, s_valid, PHI, ADJOINT)

        # The newest image of the map is in the end the solution.
        g1 = tl.zeros((ROWS, N), tl.float32)
        r1 = tl.zeros((ROWS, N), tl.float32)
        old_g = tl.zeros((ROWS, N), tl.float32)
        old_r = tl.zeros((ROWS, N), tl.float32)
        old_old = tl.zeros((ROWS,), tl.float32)
        best = tl.full((ROWS,), float("inf"), tl.float32)
        residual = tl.full((ROWS,), float("inf"), tl.float32)
        limit = tl.zeros((ROWS,), tl.float32)
        maps = tl.zeros((ROWS,), tl.int32)
        going = row < m
        count = tl.full((), 0, tl.int32)
        while (count < max_iter) & (tl.max(going.to(tl.int32), 0) > 0):
            pre = tl.dot(x, s_to_s, drive, input_precision=PRECISION)
            g0 = finish(pre, slope, s_valid, PHI, ADJOINT)
            maps += going.to(tl.int32)
            x, r1, old_g, old_r, old_old, best, residual, limit, going = advance(
                x, g0, g1, r1, old_g, old_r, old_old, best, count, tol, real
            )
            g1 = g0
            count += 1

        s = g1
        if ADJOINT:
            s *= scale[:, None]
            residual *= scale
            limit *= scale
        worse = residual - limit > worst - worst_limit
        worse = worse | (residual == float("inf"))
        worst = tl.where(worse, residual, worst)
        worst_limit = tl.where(worse, limit, worst_limit)
        most = tl.maximum(most, maps)
        tl.store(CHAIN + slot * m * width + s_at, s, s_valid)
        if CARRY:
            following = tl.zeros((ROWS, K), tl.float32)
            if ADDED is not None:
                u = t
                if ADJOINT:
                    u = t - 1
                at = ADDED + u * a_step + row[:, None] * a_row + of_c[None, :]
                there = c_valid & (of_c + u >= of_c)[None, :]  # nothing comes before step 0
                following = tl.load(at, there, 0.0).to(tl.float32)
            following = tl.dot(s, s_to_c, following, input_precision=PRECISION)
            c = tl.dot(c, c_to_c, following, input_precision=PRECISION)

    if CARRY:
        slot = tl.full((), steps, tl.int64)
        if ADJOINT:
            slot *= 0
        tl.store(CHAIN + slot * m * width + c_at, c, c_valid)
        # Beside it there is no state: what is never read is not left to chance.
        tl.store(CHAIN + slot * m * width + s_at, tl.zeros((ROWS, N), tl.float32), s_valid)
    tl.store(FIGURES + row, worst, real)
    tl.store(FIGURES + m + row, worst_limit, real)
    tl.store(FIGURES + 2 * m + row, most.to(tl.float32), real)
