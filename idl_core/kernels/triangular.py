"""The affine equilibrium with strictly upper triangular A: exact, by back-substitution in blocks.

State i depends only on the states after it, so no iteration and no condition on ‖A‖∞ is needed.
Within a block the states are found one by one; each finished block is then taken out of all the
states before it in one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.criterion import Criterion
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastSolution, Solution
from idl_core.equilibrium.solvers import Solver

BLOCK = 32


def _substitute(N: Tensor, right: Tensor, finish: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Solve x_i = finish(right_i + Σ_{j<i} N_ij x_j, i) for i = 0, 1, …: N (n, n), right (n, m)."""
    pending = right.clone()  # becomes x, row by row
    n = pending.shape[0]
    for start in range(0, n, BLOCK):
        end = min(start + BLOCK, n)
        for i in range(start, end):
            x_i = pending[i] = finish(pending[i], i)
            pending[i + 1 : end].addr_(N[i + 1 : end, i], x_i)
        pending[end:].addmm_(N[end:, start:end], pending[start:end])
    return pending


def solve_triangular(A: Tensor, Z: Tensor, activation: Activation) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n) for A (n, n) strictly upper triangular, Z (m, n)."""
    # The last state comes first: reversed, the system is lower triangular.
    reverse = _substitute(A.flip(0, 1), Z.T.flip(0), lambda row, _: activation.phi(row))
    return reverse.flip(0).T.contiguous()


def solve_triangular_adjoint(A: Tensor, slope: Tensor, grad: Tensor) -> Tensor:
    """V = slope ∘ (V A + grad) (m, n) for A (n, n) strictly upper triangular."""
    columns = slope.T
    return _substitute(A.T, grad.T, lambda row, i: row * columns[i]).T.contiguous()


class TriangularEquilibrium(torch.autograd.Function):
    """X from A (n, n), strictly upper triangular, and Z (m, n), with exact gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        A: Tensor,
        Z: Tensor,
        activation: Activation,
        solver: Solver,
        adjoint_solver: Solver,
        report: LastSolution,
    ) -> Tensor:
        X = solve_triangular(A, Z, activation)
        image = activation.phi_(torch.addmm(Z, X, A.T))
        report.forward = _measured(X.detach(), image, solver.tol, _sizes(A, X, Z))
        ctx.activation, ctx.tol, ctx.report = activation, adjoint_solver.tol, report
        ctx.save_for_backward(A, X, Z if activation.dphi_of_output is None else None)
        return X

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        A, X, Z = ctx.saved_tensors
        if Z is None:
            slope = ctx.activation.dphi_of_output(X)
        else:
            slope = ctx.activation.dphi(torch.addmm(Z, X, A.T))
        V = solve_triangular_adjoint(A, slope, grad)
        image = torch.addmm(grad, V, A).mul_(slope)
        ctx.report.adjoint = _measured(V.detach(), image, ctx.tol, _sizes(A.T, V, grad))
        return (V.T @ X).triu(1), V, None, None, None, None, None


def _sizes(A: Tensor, X: Tensor, Z: Tensor) -> Tensor:
    """Sum of the magnitudes that are summed up in each entry of X Aᵀ + Z (m, n)."""
    return torch.addmm(Z.abs(), X.abs(), A.abs().T)


def _measured(value: Tensor, image: Tensor, tol: float, sizes: Tensor) -> Solution:
    """The outcome of a direct solve: its residual is the rounding of sums of these sizes."""
    n = value.shape[1]
    rounding = (n + 2) * torch.finfo(value.dtype).eps * float(sizes.amax()) if len(value) else 0.0
    criterion = Criterion(max(tol, rounding))
    criterion.measure((image - value).abs(), image)
    return criterion.solution(value, maps=1)
