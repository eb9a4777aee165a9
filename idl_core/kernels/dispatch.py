"""Picks the implementation of an affine equilibrium and the precision it is solved in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import LastSolution
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.dense import DenseEquilibrium
from idl_core.kernels.low_rank import LowRankEquilibrium
from idl_core.kernels.triangular import TriangularEquilibrium

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
) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n), differentiable in A (n, n) and Z (m, n); fills `report`."""
    return _in_solve_precision(
        lambda a, z, x0: DenseEquilibrium.apply(
            a, z, x0, activation, solver, adjoint_solver, report
        ),
        (A, Z, X0),
    )


def low_rank_equilibrium(
    L: Tensor,
    R: Tensor,
    Z: Tensor,
    X0: Tensor | None,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    report: LastSolution,
) -> Tensor:
    """X = φ(X R Lᵀ + Z) (m, n), differentiable in L, R (n, r) and Z (m, n); fills `report`."""
    return _in_solve_precision(
        lambda left, right, z, x0: LowRankEquilibrium.apply(
            left, right, z, x0, activation, solver, adjoint_solver, report
        ),
        (L, R, Z, X0),
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


def _in_solve_precision(solve: Callable[..., Tensor], tensors: tuple[Tensor | None, ...]) -> Tensor:
    given = [t.dtype for t in tensors if t is not None]
    result = given[0]
    for dtype in given[1:]:
        result = torch.promote_types(result, dtype)
    working = torch.float32 if result in _HALF else result
    cast = [None if t is None else t.to(working) for t in tensors]
    device = next(t for t in tensors if t is not None).device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return solve(*cast).to(result)
    return solve(*cast).to(result)


def available() -> dict[str, str]:
    """Kernel name -> 'yes', or why it cannot run here."""
    return {"torch": "yes"}
