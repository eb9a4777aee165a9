"""Passes through a whole implicit model by numba's programs."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from idl_core.equilibrium.solution import Solution, warn_unreachable
from idl_core.equilibrium.solvers import Picard
from idl_core.kernels.numba import support
from idl_core.kernels.numba.programs import ROWS, TILE_BYTES
from idl_core.kernels.numba.support import limits, phi, programs
from idl_core.kernels.problem import Method, Model, Pass

# Samples up to which programs for single samples are faster than those for tiles, which compute all
# lanes of one: while A is in the second-level cache, and beyond.
_FEW, _FEW_OF_LARGE = 4, 2


def obstacle(model: Model, U: Tensor, X0: Tensor | None, method: Method) -> str | None:
    """Why a model cannot be run here on a batch U (m, p), from X0 (m, n) or φ(B U)."""
    (m, p), q, n = U.shape, model.C.shape[0], model.C.shape[-1]
    r = n if model.right is None else model.right.shape[-1]
    expected = (
        (U, (m, p)),
        (X0, (m, n)),
        (model.left, (n, r or n)),
        (model.right, (n, r)),
        (model.B, (n, p)),
        (model.C, (q, n)),
        (model.D, (q, p)),
    )
    solvers = method.solver, method.adjoint_solver
    smooth = U.dtype is torch.float32 or (model.right is None and _are_few(m, n))
    return support.obstacle(method.activation, solvers, expected, smooth)


def forward(
    model: Model, U: Tensor, X0: Tensor | None, method: Method
) -> tuple[Pass, Tensor, Tensor | None]:
    """Ŷ = X Cᵀ + U Dᵀ (m, q) at X = φ(X Aᵀ + U Bᵀ), from X0 (m, n) or φ(U Bᵀ).

    Returns:
        the pass, Ŷ, and what `backward` finds φ' from where it is not a function of φ.
    """
    of, U = model.contiguous(), U.contiguous()
    solver = method.solver
    assert isinstance(solver, Picard)
    m, _, n, q, r, _ = sizes = _sizes(of, U)
    lanes = TILE_BYTES // U.itemsize
    driven = U.new_empty(-(-m // lanes), _filled(n) + _filled(q), lanes)
    X, figures, Y = U.new_empty(m, n), U.new_empty(3, m), U.new_empty(m, q)
    inner = U.new_empty(r, m) if r else None
    start = None if X0 is None else X0.contiguous()
    how = _programs(m, n, r).forward(
        _addresses(of),
        _addresses((U, start)),
        _addresses((driven, X, inner, figures, Y)),
        sizes,
        limits(solver, phi(method.activation), U.dtype, relative=False),
        torch.get_num_threads(),
    )
    if how == _WITHIN_ROUNDING:
        warn_unreachable(solver.tol, U.dtype, float(X.abs().max()))
    solution = Solution(X, figures, solver.tol, False, how > 0)
    kept = driven if method.activation.dphi_of_output is None else None
    return Pass(X, inner, solution), Y, kept


def backward(
    model: Model,
    U: Tensor,
    known: Pass,
    driven: Tensor | None,
    grad: Tensor,
    method: Method,
) -> tuple[Pass, Model]:
    """The adjoint solution V for the gradient of Ŷ (m, q), and the gradients of the matrices.

    Args:
        known, driven: of the forward pass.
    """
    of, U = model.contiguous(), U.contiguous()
    solver = method.adjoint_solver
    assert isinstance(solver, Picard)
    m, _, n, q, r, _ = sizes = _sizes(of, U)
    grad = grad.contiguous()
    V, rows, figures = U.new_empty(n + q, m), U.new_empty(m, n), U.new_empty(3, m)
    inner, gradients = U.new_empty(r, m) if r else None, _room_for_gradients(of)
    how = _programs(m, n, r).backward(
        _addresses(of),
        _addresses((U, known.states, known.inner, grad, driven)),
        _addresses((V, rows, inner, figures)),
        _addresses(gradients),
        sizes,
        limits(solver, (-1, 1.0), U.dtype, relative=True),
        limits(solver, phi(method.activation), U.dtype, relative=True).phi,
        torch.get_num_threads(),
    )
    solution = Solution(rows, figures, solver.tol, True, how > 0)
    return Pass(rows, inner, solution), _as_matrices(gradients)


def _programs(m: int, n: int, r: int) -> ModuleType:
    """What solves for m samples."""
    return programs().samples if not r and _are_few(m, n) else programs().model


def _are_few(m: int, n: int) -> bool:
    return 0 < m <= (_FEW if n * n <= 1 << 18 else _FEW_OF_LARGE)  # of none they write no gradients


_WITHIN_ROUNDING = 2  # how a solve of compiled functions has ended; 0: it has failed


def _sizes(of: Model, U: Tensor) -> tuple[int, int, int, int, int, int]:
    (m, p), (q, n) = U.shape, of.C.shape
    return m, p, n, q, 0 if of.right is None else of.right.shape[1], 0 if of.D is None else q


def _room_for_gradients(of: Model) -> Model:
    """Those of the factors of A transposed."""
    left, right = of.left, of.right
    if right is not None:
        left, right = left.new_empty(left.shape[::-1]), right.new_empty(right.shape[::-1])
    else:
        left = torch.empty_like(left)
    D = None if of.D is None else torch.empty_like(of.D)
    return Model(left, right, torch.empty_like(of.B), torch.empty_like(of.C), D)


def _as_matrices(room: Model) -> Model:
    if room.right is None:
        return room
    return room._replace(left=room.left.T, right=room.right.T)


def _addresses(tensors: tuple[Tensor | None, ...]) -> tuple[int, ...]:
    """Of tensors that a caller keeps for as long as they are used."""
    return tuple([0 if x is None else x.data_ptr() for x in tensors])


def _filled(n: int) -> int:
    return -(-n // ROWS) * ROWS
