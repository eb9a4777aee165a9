"""The affine equilibrium with A = L Rᵀ: solved for the r numbers Rᵀx, A is never formed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idl_core.activations import Activation
from idl_core.equilibrium.solution import LastSolution, Solution
from idl_core.equilibrium.solvers import Solver


def solve_low_rank(
    L: Tensor, R: Tensor, Z: Tensor, X0: Tensor | None, activation: Activation, solver: Solver
) -> tuple[Tensor, Solution]:
    """Solve y = φ(y Lᵀ + Z) R: L and R (n, r), Z and X0 (m, n).

    Returns:
        X = φ(y Lᵀ + Z) (m, n), and the solution for y (m, r). With ‖L‖∞ ≤ 1 the residual of X is
        no larger than that of y.
    """
    transposed = L.T
    pre = torch.empty_like(Z)

    def step(y: Tensor, out: Tensor) -> Tensor:
        return torch.mm(activation.phi_(torch.addmm(Z, y, transposed, out=pre)), R, out=out)

    solution = solver.solve(step, (activation.phi(Z) if X0 is None else X0) @ R)
    return activation.phi_(torch.addmm(Z, solution.value, transposed)), solution


def solve_low_rank_adjoint(
    L: Tensor, R: Tensor, slope: Tensor, grad: Tensor, solver: Solver
) -> tuple[Tensor, Solution]:
    """Solve V = slope ∘ (V L Rᵀ + grad) for V (m, n), by way of w = V L (m, r)."""
    transposed = R.T
    buffer = torch.empty_like(grad)

    def step(w: Tensor, out: Tensor) -> Tensor:
        return torch.mm(torch.addmm(grad, w, transposed, out=buffer).mul_(slope), L, out=out)

    unit = grad.abs().amax() if grad.numel() else None
    solution = solver.solve(step, (slope * grad) @ L, unit)
    return torch.addmm(grad, solution.value, transposed).mul_(slope), solution


class LowRankEquilibrium(torch.autograd.Function):
    """X from L and R (n, r) and Z (m, n); gradients by the implicit function theorem."""

    @staticmethod
    def forward(
        ctx: Any,
        L: Tensor,
        R: Tensor,
        Z: Tensor,
        X0: Tensor | None,
        activation: Activation,
        solver: Solver,
        adjoint_solver: Solver,
        report: LastSolution,
    ) -> Tensor:
        X, report.forward = solve_low_rank(L, R, Z, X0, activation, solver)
        ctx.activation, ctx.solver, ctx.report = activation, adjoint_solver, report
        ctx.save_for_backward(
            L, R, X, report.forward.value, Z if activation.dphi_of_output is None else None
        )
        return X

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        L, R, X, y, Z = ctx.saved_tensors
        if Z is None:
            slope = ctx.activation.dphi_of_output(X)
        else:
            slope = ctx.activation.dphi(torch.addmm(Z, y, L.T))
        V, solution = solve_low_rank_adjoint(L, R, slope, grad, ctx.solver)
        solution.warn_unless_converged("the adjoint of the low-rank implicit model")
        ctx.report.adjoint = solution
        return V.T @ y, X.T @ solution.value, V, None, None, None, None, None
