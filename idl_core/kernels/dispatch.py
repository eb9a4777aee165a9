"""Picks the implementation of an affine equilibrium and the precision it is solved in."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import LastSolution
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels import choice
from idl_core.kernels.dense import DenseEquilibrium, DenseModel
from idl_core.kernels.low_rank import LowRankEquilibrium
from idl_core.kernels.numba import models as tiled
from idl_core.kernels.numba import solves
from idl_core.kernels.recurrent import Recurrence, RecurrentEquilibrium
from idl_core.kernels.tiled_model import TiledModel
from idl_core.kernels.triangular import TriangularEquilibrium
from idl_core.kernels.triton import nodes as fused

# Formats in which an iteration would stall at its rounding error are solved in float32.
_HALF = (torch.bfloat16, torch.float16)


def dense_equilibrium(
    A: Tensor,
    Z: Tensor,
    X0: Tensor | None,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    report: LastSolution,
    kernel: str = "auto",
) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n), differentiable in A (n, n) and Z (m, n); fills `report`."""
    if choice.fused_dense(kernel, activation, (solver, adjoint_solver), A, Z):
        return fused.dense(A, Z, X0, activation, solver, adjoint_solver, report)
    return _in_solve_precision(
        lambda a, z: DenseEquilibrium.apply(
            a,
            z,
            _start(X0, z),
            activation,
            solver,
            adjoint_solver,
            report,
            choice.by_tiles(kernel),
        ),
        (A, Z),
    )


def whole_model(
    U: Tensor,
    X0: Tensor | None,
    left: Tensor,
    right: Tensor | None,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    report: LastSolution,
    kernel: str = "auto",
) -> Tensor:
    """Ŷ = X Cᵀ + U Dᵀ (m, q) with X = φ(X Aᵀ + U Bᵀ), A being left or left rightᵀ; differentiable
    in U and all matrices."""
    settings = (activation, solver, adjoint_solver, report)
    X0 = None if X0 is None else X0.to(left.dtype)
    dtype = U.dtype
    alike = left.dtype == B.dtype == C.dtype == dtype and dtype not in _HALF
    if alike and not torch.is_autocast_enabled(U.device.type):
        tiles = choice.by_tiles(kernel)
        of = tiled.Weights(left, right, B, C, D)
        if tiles and tiled.suits(activation, (solver, adjoint_solver), U, X0, of):
            Y: Tensor = TiledModel.apply(U, X0, left, right, B, C, D, *settings)
            return Y
        if right is None and not choice.fused_dense(kernel, activation, settings[1:3], left, U):
            Y = DenseModel.apply(U, X0, left, B, C, D, *settings, tiles)
            return Y
    # The products with U and X stay in the lower precision; only the solve leaves it.
    Z = F.linear(U, B)
    if right is None:
        X = dense_equilibrium(left, Z, X0, *settings, kernel)
    else:
        X = low_rank_equilibrium(left, right, Z, X0, *settings, kernel)
    return prediction(U, X, C, D)


def rows_within(A: Tensor, radius: float, kernel: str = "auto") -> bool:
    """Whether ‖A‖∞ ≤ radius is known at little cost; False where it may be so too."""
    return choice.by_tiles(kernel) and solves.rows_within(A, radius)


def prediction(U: Tensor, X: Tensor, C: Tensor, D: Tensor | None) -> Tensor:
    """Ŷ = X Cᵀ + U Dᵀ (m, q)."""
    Y = F.linear(X, C)
    return Y if D is None else Y + F.linear(U, D)


def low_rank_equilibrium(
    L: Tensor,
    R: Tensor,
    Z: Tensor,
    X0: Tensor | None,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    report: LastSolution,
    kernel: str = "auto",
) -> Tensor:
    """X = φ(X R Lᵀ + Z) (m, n), differentiable in L, R (n, r) and Z (m, n); fills `report`."""
    if choice.fused_low_rank(kernel, activation, (solver, adjoint_solver), L, Z):
        return fused.low_rank(L, R, Z, X0, activation, solver, adjoint_solver, report)
    return _in_solve_precision(
        lambda left, right, z: LowRankEquilibrium.apply(
            left, right, z, _start(X0, z), activation, solver, adjoint_solver, report
        ),
        (L, R, Z),
    )


def triangular_equilibrium(
    A: Tensor,
    Z: Tensor,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    report: LastSolution,
) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n) for strictly upper triangular A (n, n); fills `report`.

    The solvers' tolerances are what the residuals of the direct solution are compared with.
    """
    return _in_solve_precision(
        lambda a, z: TriangularEquilibrium.apply(a, z, activation, solver, adjoint_solver, report),
        (A, Z),
    )


def recurrent_equilibrium(
    left: Tensor,
    right: Tensor | None,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    U: Tensor,
    h0: Tensor,
    how: Recurrence,
) -> Tensor:
    """All h_t (m, T, k) of an implicit RNN, or the last (m, k); fills `how.report`.

    Differentiable in A (n, n), which is `left` or, of low rank, left @ right.T, in B (n, p + k),
    C (k, n), D (k, p + k), the inputs U (m, T, p), T ≥ 1, and the initial state h0 (m, k).
    """
    settings = (how.activation, how.solver, how.adjoint_solver)
    tensors = (U, left, B, C, D, h0)
    if choice.fused_recurrent(how.kernel, settings[0], settings[1:], tensors, *C.shape[::-1]):
        return fused.recurrent(left, right, B, C, D, U, h0, *settings, how.all_outputs, how.report)
    return _in_solve_precision(
        lambda *tensors: RecurrentEquilibrium.apply(*tensors, how),
        (left, right, B, C, D, U, h0),
    )


def _start(X0: Tensor | None, like: Tensor) -> Tensor | None:
    """A warm start in the precision of the solve: it decides no result's."""
    return None if X0 is None else X0.to(like.dtype)


def _in_solve_precision(solve: Callable[..., Tensor], tensors: tuple[Tensor | None, ...]) -> Tensor:
    """Call `solve` on the tensors in one dtype, at least float32, outside autocast."""
    given = {t.dtype for t in tensors if t is not None}
    device = next(t for t in tensors if t is not None).device.type
    autocast = torch.is_autocast_enabled(device)
    if len(given) == 1 and given.isdisjoint(_HALF) and not autocast:
        return solve(*tensors)
    result = reduce(torch.promote_types, given)
    working = torch.float32 if result in _HALF else result
    with torch.autocast(device, enabled=False):
        return solve(*(None if t is None else t.to(working) for t in tensors)).to(result)
