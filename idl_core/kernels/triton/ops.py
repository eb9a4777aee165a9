"""The Triton programs as torch operators `idl::solve_chain` and `idl::solve_low_rank`.

Nothing here waits for the device: figures of the solves come back as tensors.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from idl_core.kernels.triton import sizes
from idl_core.kernels.triton.precision import precision

torch.library.define(
    "idl::solve_chain",
    "(Tensor W, Tensor? drive, Tensor? added, Tensor? start, Tensor? point, SymInt m, SymInt steps,"
    " int k, str phi, bool adjoint, float tol, int max_iter) -> (Tensor, Tensor)",
)
torch.library.define(
    "idl::solve_low_rank",
    "(Tensor L, Tensor R, Tensor drive, Tensor? start, Tensor? point, str phi, bool adjoint,"
    " float tol, int max_iter) -> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("idl::solve_chain", ("cpu", "cuda"))
def solve_chain(
    W: Tensor,
    drive: Tensor | None,
    added: Tensor | None,
    start: Tensor | None,
    point: Tensor | None,
    m: int,
    steps: int,
    k: int,
    phi: str,
    adjoint: bool,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor]:
    """Solve the equilibria of all steps; see `idl_core.kernels.triton.chain` for the equations.

    Args:
        W: (n + k, n + k), rows belong to the results: in the adjoint its transpose is taken.
        drive: (steps, m, n); None: 0.
        added: (steps, m, k); None: 0. In the adjoint that of a step is added before it.
        start: c_0 (m, k) or, where k = 0, a first guess (m, n).
        point: (steps, m, >= n), in the adjoint: the state, or of silu the pre-activation.
        phi: name of the activation.
        tol: bound on the residual; in the adjoint in units of a power of two near the sample's
            largest gradient.

    Returns:
        The chain (steps + 1, m, n + k), of s_j and c_j, the last with a carry alone beside zeros;
        in the adjoint one place later, the first with a carry alone; where k = 0, (steps, m, n).
        And the figures (3, m): each sample's worst residual, its bound, and its most applications
        of the map.
    """
    n = W.shape[0] - k
    chain, figures = _chain_outputs(W, m, steps, k)
    if not m:
        return chain, figures
    if k == 0 and not sizes.fits_on_chip(n, k, W.device):
        assert drive is not None
        of_one = (drive[0], start, None if point is None else point[0])
        _launch_streamed(W, *of_one, chain[0], figures, phi, adjoint, tol, max_iter)
        return chain, figures
    from idl_core.kernels.triton.chain import solve_chain as program

    strides = W.stride() if adjoint else W.stride()[::-1]
    drive, added, point = (_rows_together(t) for t in (drive, added, point))
    with _device(W):
        program[(-(-m // sizes.ROWS),)](
            W, *strides,
            drive, *_steps_and_rows(drive), added, *_steps_and_rows(added),
            *_contiguous(start), point, *_steps_and_rows(point), chain, figures,
            tol, max_iter, m, n, k, steps,
            PHI=phi, ADJOINT=adjoint, CARRY=k > 0, PRECISION=precision(), **sizes.of_chain(n, k),
        )  # fmt: skip
    return chain, figures


@torch.library.register_fake("idl::solve_chain")
def _(W, drive, added, start, point, m, steps, k, phi, adjoint, tol, max_iter):  # type: ignore[no-untyped-def]
    return _chain_outputs(W, m, steps, k)


def _chain_outputs(W: Tensor, m: int, steps: int, k: int) -> tuple[Tensor, Tensor]:
    shape = (steps + (k > 0), m, W.shape[0])
    chain = torch.empty(shape, dtype=torch.float32, device=W.device)
    return chain, chain.new_empty(3, m)


def _launch_streamed(
    A: Tensor,
    drive: Tensor,
    start: Tensor | None,
    point: Tensor | None,
    X: Tensor,
    figures: Tensor,
    phi: str,
    adjoint: bool,
    tol: float,
    max_iter: int,
) -> None:
    from idl_core.kernels.triton.streamed import solve_streamed as program

    m, n = drive.shape
    cut = sizes.of_streamed(sizes.streamed_rows(m, A))
    rows, columns = cut["ROWS"], cut["COLUMNS"]
    programs, wide = -(-m // rows), -(-n // columns) * columns
    M = X.new_zeros(wide, wide)
    M[:n, :n] = A if adjoint else A.T
    scratch = X.new_empty(programs, 9, rows, wide)
    with _device(A):
        program[(programs,)](
            M, *_contiguous(drive, start, point), scratch, X, figures,
            tol, max_iter, m, n, wide,
            PHI=phi, ADJOINT=adjoint, PRECISION=precision(), **cut,
        )  # fmt: skip


@torch.library.impl("idl::solve_low_rank", ("cpu", "cuda"))
def solve_low_rank(
    L: Tensor,
    R: Tensor,
    drive: Tensor,
    start: Tensor | None,
    point: Tensor | None,
    phi: str,
    adjoint: bool,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve y = φ(y Lᵀ + drive) R: L and R (n, r), drive and point (m, n), start (m, r).

    Returns:
        X = φ(y Lᵀ + drive) (m, n), y (m, r), and figures (3, m) as of `solve_chain`.
    """
    (m, n), r = drive.shape, L.shape[1]
    X, y, figures = _low_rank_outputs(drive, r)
    if not m:
        return X, y, figures
    from idl_core.kernels.triton.low_rank import solve_low_rank as program

    with _device(L):
        program[(-(-m // sizes.ROWS),)](
            *_contiguous(L, R, drive, start, point), X, y, figures,
            tol, max_iter, m, n, r,
            PHI=phi, ADJOINT=adjoint, PRECISION=precision(), **sizes.of_low_rank(r),
        )  # fmt: skip
    return X, y, figures


@torch.library.register_fake("idl::solve_low_rank")
def _(L, R, drive, start, point, phi, adjoint, tol, max_iter):  # type: ignore[no-untyped-def]
    return _low_rank_outputs(drive, L.shape[1])


def _low_rank_outputs(drive: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    X = torch.empty_like(drive, dtype=torch.float32, memory_format=torch.contiguous_format)
    m = drive.shape[0]  # len() would be a number, and of one batch, while torch compiles for any
    return X, X.new_empty(m, r), X.new_empty(3, m)


def _steps_and_rows(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.stride(0), tensor.stride(1))


def _rows_together(tensor: Tensor | None) -> Tensor | None:
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()


def _contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if t is None else t.contiguous() for t in tensors)


def _device(like: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(like.device) if like.is_cuda else nullcontext()
