"""The affine equilibrium with A = L Rᵀ: solved for the r numbers Rᵀx, A is never formed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.criterion import Criterion
from idl_core.equilibrium.first_order import first_order_only
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
    transposed, R = L.T, _tall(R)
    # One buffer of X's size for all: fresh memory of that size costs more than what is done in it.
    X = Z.clone()

    def state(y: Tensor) -> Tensor:
        return activation.phi_(torch.addmm(Z, y, transposed, out=X))

    def step(y: Tensor, out: Tensor) -> Tensor:
        return torch.mm(state(y), R, out=out)

    solution = solver.solve(step, (activation.phi_(X) if X0 is None else X0) @ R)
    return state(solution.value), solution


def _tall(M: Tensor) -> Tensor:
    """M (n, r) laid out by columns: a product with few columns is then several times faster."""
    return M.T.contiguous().T


def solve_low_rank_adjoint(
    L: Tensor, R: Tensor, slope: Tensor, grad: Tensor, solver: Solver, forward: Solution
) -> tuple[Tensor, Solution]:
    """Solve V = slope ∘ (V L Rᵀ + grad) for V (m, n), by way of w = V L (m, r).

    It is linear in w: up to rank `DIRECT_RANK` each sample's r equations are formed and solved.
    """
    transposed, L = R.T, _tall(L)
    V = slope * grad

    def value(w: Tensor) -> Tensor:
        return torch.addmm(grad, w, transposed, out=V).mul_(slope)

    def step(w: Tensor, out: Tensor) -> Tensor:
        return torch.mm(value(w), L, out=out)

    unit = torch.stack(torch.aminmax(grad)).abs().amax() if grad.numel() else None
    if len(transposed) <= DIRECT_RANK:
        w = _direct(L, R, slope, V @ L)
        criterion = Criterion(solver.tol, unit)
        image = step(w, torch.empty_like(w))
        criterion.measure((image - w).abs(), image)
        return V, criterion.solution(w, maps=1)
    solution = solver.solve(step, V @ L, unit, forward.common_iterations)
    return value(solution.value), solution


def _direct(L: Tensor, R: Tensor, slope: Tensor, right: Tensor) -> Tensor:
    """w (m, r) with w_i = w_i K_i + right_i, where K_i = Rᵀ diag(slope_i) L (r, r)."""
    (n, r), m = L.shape, len(slope)
    products = (R.T[:, None] * L.T[None]).reshape(r * r, n)  # rows R_k ∘ L_l
    K = (slope @ products.T).view(m, r, r)
    identity = torch.eye(r, dtype=L.dtype, device=L.device)
    w: Tensor = torch.linalg.solve_ex((identity - K).mT, right)[0]
    return w


# The equations of a sample cost n r² to form, an iteration 2 n r: worth some ten iterations.
DIRECT_RANK = 8


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
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        L, R, X, y, Z = ctx.saved_tensors
        if Z is None:
            slope = ctx.activation.dphi_of_output(X)
        else:
            slope = ctx.activation.dphi(torch.addmm(Z, y, L.T))
        V, solution = solve_low_rank_adjoint(L, R, slope, grad, ctx.solver, ctx.report.forward)
        solution.warn_unless_converged("the adjoint of the low-rank implicit model")
        ctx.report.adjoint = solution
        grad_L, grad_R = (y.T @ V).T, (solution.value.T @ X).T
        return grad_L, grad_R, V, None, None, None, None, None
