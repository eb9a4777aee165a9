"""The entries: an equilibrium, a whole model, a sequence, each in the precision it is solved in."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core.kernels import backend
from idl_core.kernels.autograd import Equilibrium, ModelOutput, RecurrentOutput
from idl_core.kernels.problem import Affine, Method, Model, solution_of

# Formats in which an iteration would stall at its rounding error are solved in float32.
_HALF = (torch.bfloat16, torch.float16)


def equilibrium(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n), differentiable in A and Z (m, n), from X0 (m, n) or φ(Z).

    Raises: ValueError where the kernel that was asked for cannot solve it.
    """
    if backend.takes_triton(A, Z, method):
        X, numbers = Equilibrium.apply("triton", method.while_compiling(), *A, Z, X0)
        if method.report is not None:
            found = solution_of(X.detach(), numbers, method.solver, relative=False)
            method.report.forward = found
        result: Tensor = X.to(_result((*A, Z)))
        return result

    def solve(left: Tensor, right: Tensor | None, z: Tensor) -> Tensor:
        start = None if X0 is None else X0.to(z.dtype)
        chosen = backend.of_equilibrium(Affine(left, right), z, start, method)
        X: Tensor = Equilibrium.apply(chosen, method, left, right, z, start)[0]
        return X

    return _in_solve_precision(solve, (*A, Z))


def triangular_equilibrium(A: Tensor, Z: Tensor, method: Method) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n) for strictly upper triangular A (n, n).

    The solvers' tolerances are what the residuals of the direct solution are compared with.
    """

    def solve(a: Tensor, z: Tensor) -> Tensor:
        X: Tensor = Equilibrium.apply("triangular", method, a, None, z, None)[0]
        return X

    return _in_solve_precision(solve, (A, Z))


def model_output(model: Model, U: Tensor, X0: Tensor | None, method: Method) -> Tensor:
    """Ŷ = X Cᵀ + U Dᵀ (m, q) with X = φ(X Aᵀ + U Bᵀ), differentiable in U and all matrices.

    Raises: ValueError where the kernel that was asked for cannot solve it.
    """
    X0 = None if X0 is None else X0.to(model.left.dtype)
    dtype = U.dtype
    alike = model.left.dtype == model.B.dtype == model.C.dtype == dtype and dtype not in _HALF
    if alike and not torch.is_autocast_enabled(U.device.type):
        whole = backend.of_model(model, U, X0, method)
        if whole is not None:
            Y: Tensor = ModelOutput.apply(whole, method, U, X0, *model)
            return Y
    # The products with U and X stay in the lower precision; only the solve leaves it.
    X = equilibrium(model.A, F.linear(U, model.B), X0, method)
    return prediction(U, X, model.C, model.D)


def prediction(U: Tensor, X: Tensor, C: Tensor, D: Tensor | None) -> Tensor:
    """Ŷ = X Cᵀ + U Dᵀ (m, q)."""
    Y = F.linear(X, C)
    return Y if D is None else Y + F.linear(U, D)


def recurrent_output(
    model: Model, U: Tensor, h0: Tensor, method: Method, *, all_outputs: bool
) -> Tensor:
    """All h_t (m, T, k) of an implicit RNN, or the last (m, k).

    Differentiable in the matrices, of which B (n, p + k) and D (k, p + k) have the columns of the
    inputs first, in the inputs U (m, T, p), T ≥ 1, and in the initial state h0 (m, k).

    Raises: ValueError where the kernel that was asked for cannot solve it.
    """
    chosen = backend.of_sequence(model, U, h0, method)
    if chosen == "triton":
        given = (all_outputs, U, h0, *model)
        outputs, states, numbers = RecurrentOutput.apply(chosen, method.while_compiling(), *given)
        if method.report is not None:
            found = solution_of(states, numbers, method.solver, relative=False)
            method.report.forward = found
        result: Tensor = outputs.to(_result((U, h0, *model)))
        return result

    def solve(*tensors: Tensor | None) -> Tensor:
        outputs: Tensor = RecurrentOutput.apply(chosen, method, all_outputs, *tensors)[0]
        return outputs

    return _in_solve_precision(solve, (U, h0, *model))


def _result(tensors: tuple[Tensor | None, ...]) -> torch.dtype:
    return reduce(torch.promote_types, (t.dtype for t in tensors if t is not None))


def _in_solve_precision(solve: Callable[..., Tensor], tensors: tuple[Tensor | None, ...]) -> Tensor:
    """Call `solve` on the tensors in one dtype, at least float32, outside autocast."""
    given = {t.dtype for t in tensors if t is not None}
    device = next(t for t in tensors if t is not None).device.type
    autocast = torch.is_autocast_enabled(device)
    if len(given) == 1 and given.isdisjoint(_HALF) and not autocast:
        return solve(*tensors)
    result = _result(tensors)
    working = torch.float32 if result in _HALF else result
    with torch.autocast(device, enabled=False):
        return solve(*(None if t is None else t.to(working) for t in tensors)).to(result)
