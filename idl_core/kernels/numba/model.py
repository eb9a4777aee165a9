"""Passes through a whole implicit model by numba's programs, and by torch where they give up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idl_core.equilibrium.solution import Solution, SolveStats, warn_unreachable
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import support
from idl_core.kernels.numba.programs import ROWS, TILE_BYTES
from idl_core.kernels.numba.support import below, limits, programs
from idl_core.kernels.problem import Affine, Found, Method, Model, Pass

Solve = Callable[[Affine, Tensor, Tensor | None, Method], Found]
SolveAdjoint = Callable[[Affine, Tensor, Tensor, Solver, int | None], Found]


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
    return support.obstacle(method.activation, solvers, expected)


def forward(
    model: Model, U: Tensor, X0: Tensor | None, method: Method, otherwise: Solve
) -> tuple[Pass, Tensor, bool]:
    """Ŷ = X Cᵀ + U Dᵀ at X = φ(X Aᵀ + U Bᵀ); `otherwise` solves what is slow or not finite.

    Returns:
        The pass, Ŷ (m, q), and whether the programs have found it.
    """
    model, batch = model.contiguous(), U.contiguous()
    found, Y, driven = _forward(model, batch, X0, method)
    if found.solution is not None:
        return found, Y, True
    Z, DU = _drives(driven, len(U), *model.C.shape[::-1])
    found = _as_pass(otherwise(model.A, Z, X0, method))
    return found, torch.addmm(DU, found.states, model.C.T), False


def backward(
    model: Model,
    U: Tensor,
    known: Pass,
    grad: Tensor,
    method: Method,
    otherwise: SolveAdjoint,
    by_programs: bool,
) -> tuple[Pass, Model]:
    """The adjoint solution V for the gradient of Ŷ (m, q), and the gradients of the matrices.

    Args:
        known: the forward pass.
        by_programs: whether they found it; else they would be as slow now.
    """
    model, batch, solution = model.contiguous(), U.contiguous(), None
    assert known.solution is not None
    if by_programs:
        found, sums = _backward(model, batch, known, grad, method)
        solution = found.solution
    if solution is None:
        slope = method.activation.dphi_of_output
        assert slope is not None
        solver, pulled = method.adjoint_solver, grad @ model.C
        expected = known.solution.common_iterations
        found = _as_pass(otherwise(model.A, slope(known.states), pulled, solver, expected))
        sums = _gradients(model, batch, known, found, grad)
    return found, sums


def _as_pass(found: Found) -> Pass:
    inner = None if found.inner is None else found.inner.T.contiguous()
    return Pass(found.states.contiguous(), inner, found.solution)


def _forward(
    of: Model, U: Tensor, X0: Tensor | None, method: Method
) -> tuple[Pass, Tensor, Tensor]:
    """By the programs: the pass; Ŷ (m, q), known where it has a solution; tiles of B U and D U."""
    solver = method.solver
    assert isinstance(solver, Picard)
    m, _, n, q, r, _ = sizes = _sizes(of, U)
    lanes = TILE_BYTES // U.itemsize
    driven = U.new_empty(-(-m // lanes), _filled(n) + _filled(q), lanes)
    X, figures, Y = U.new_empty(m, n), U.new_empty(3, m), U.new_empty(m, q)
    inner = U.new_empty(r, m) if r else None
    start = None if X0 is None else X0.contiguous()
    how = programs().model.forward(
        _addresses(of),
        _addresses((U, start)),
        _addresses((driven, X, inner, figures, Y)),
        sizes,
        limits(solver, below(method.activation), U.dtype, relative=False),
        torch.get_num_threads(),
    )
    if how == _WITHIN_ROUNDING:
        warn_unreachable(solver.tol, U.dtype, float(X.abs().max()))
    solution = Solution(X, SolveStats(*figures.unbind()), solver.tol, False, True) if how else None
    return Pass(X, inner, solution), Y, driven


def _drives(driven: Tensor, m: int, n: int, q: int) -> tuple[Tensor, Tensor]:
    """B U (m, n) and D U (m, q) from the tiles of them."""
    samples = driven.transpose(1, 2).flatten(0, 1)[:m]
    return samples[:, :n], samples[:, _filled(n) : _filled(n) + q]


def _backward(
    of: Model, U: Tensor, known: Pass, grad: Tensor, method: Method
) -> tuple[Pass, Model]:
    """By the programs: V = φ'(X) ∘ (V A + grad C), and the gradients of the matrices, known where
    it has a solution."""
    solver = method.adjoint_solver
    assert isinstance(solver, Picard)
    m, _, n, q, r, _ = sizes = _sizes(of, U)
    grad = grad.contiguous()
    V, rows, figures = U.new_empty(n + q, m), U.new_empty(m, n), U.new_empty(3, m)
    inner, gradients = U.new_empty(r, m) if r else None, _room_for_gradients(of)
    how = programs().model.backward(
        _addresses(of),
        _addresses((U, known.states, known.inner, grad)),
        _addresses((V, rows, inner, figures)),
        _addresses(gradients),
        sizes,
        limits(solver, 1.0, U.dtype, relative=True),
        below(method.activation),
        torch.get_num_threads(),
    )
    solution = (
        Solution(rows, SolveStats(*figures.unbind()), solver.tol, True, True) if how else None
    )
    return Pass(rows, inner, solution), _as_matrices(gradients)


def _gradients(of: Model, U: Tensor, known: Pass, found: Pass, grad: Tensor) -> Model:
    """Those of the matrices, from a forward pass and a backward pass that torch has done."""
    V, room = torch.cat((found.states, grad), 1).T.contiguous(), _room_for_gradients(of)
    programs().model.sum_up(
        _addresses((U, known.states, known.inner)),
        _addresses((V, found.states, found.inner)),
        _addresses(room),
        _sizes(of, U),
        limits(Picard(), 1.0, U.dtype, relative=True).tol,
        torch.get_num_threads(),
    )
    return _as_matrices(room)


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
