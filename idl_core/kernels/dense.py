"""The affine equilibrium X = φ(X Aᵀ + Z) and its adjoint, in torch, on any device.

Picard iteration in place: one fused product-and-sum and one in-place φ an iteration.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastSolution, Solution
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.numba import solves as tiled


def solve_dense(
    A: Tensor, Z: Tensor, X0: Tensor | None, activation: Activation, solver: Solver, *, tiles: bool
) -> Solution:
    """Solve X = φ(X Aᵀ + Z): A (n, n), Z (m, n), X0 (m, n) or None for φ(Z).

    tiles: to try compiled tiles before torch
    """
    by_tiles = tiled.solve_dense(A, Z, X0, activation, solver, relative=False) if tiles else None
    if by_tiles is not None:
        return by_tiles
    Z, transposed = Z.contiguous(), A.T  # the solvers work on rows
    phi_ = activation.phi_

    def step(X: Tensor, out: Tensor) -> Tensor:
        return phi_(torch.addmm(Z, X, transposed, out=out))

    return solver.solve(step, activation.phi(Z) if X0 is None else X0)


def solve_dense_adjoint(
    A: Tensor, slope: Tensor, grad: Tensor, solver: Solver, forward: Solution, *, tiles: bool
) -> Solution:
    """Solve V = slope ∘ (V A + grad): A (n, n), slope = φ'(pre-activation) and grad (m, n).

    The tolerance is relative to max|grad|, so that scaling a loss scales its gradient.
    """

    by_tiles = tiled.solve_dense(A.T, grad, None, slope, solver, relative=True) if tiles else None
    if by_tiles is not None:
        return by_tiles

    grad, slope = grad.contiguous(), slope.contiguous()

    def step(V: Tensor, out: Tensor) -> Tensor:
        return torch.addmm(grad, V, A, out=out).mul_(slope)

    unit = grad.abs().amax() if grad.numel() else None
    # Forward and adjoint contract at nearly the same rate.
    return solver.solve(step, slope * grad, unit, forward.common_iterations)


class DenseEquilibrium(torch.autograd.Function):
    """X from A (n, n) and Z (m, n); gradients by the implicit function theorem."""

    @staticmethod
    def forward(
        ctx: Any,
        A: Tensor,
        Z: Tensor,
        X0: Tensor | None,
        activation: Activation,
        solver: Solver,
        adjoint_solver: Solver,
        report: LastSolution,
        tiles: bool,
    ) -> Tensor:
        report.forward = solve_dense(A, Z, X0, activation, solver, tiles=tiles)
        # Its own tensor: X becomes part of the graph, which holds the report.
        X = report.forward.value.detach()
        ctx.activation, ctx.solver, ctx.report = activation, adjoint_solver, report
        ctx.tiles = tiles
        # Z is kept only where φ' cannot be had from X.
        ctx.save_for_backward(A, X, Z if activation.dphi_of_output is None else None)
        return X

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        A, X, Z = ctx.saved_tensors
        V = _adjoint(ctx, A, X, Z, grad)
        grad_A = V.T @ X if ctx.needs_input_grad[0] else None
        return grad_A, V, None, None, None, None, None, None


class DenseModel(torch.autograd.Function):
    """Ŷ = X Cᵀ + U Dᵀ with X = φ(X Aᵀ + U Bᵀ), as one node: at the sizes of these models the
    bookkeeping of separate ones takes as long as the mathematics."""

    @staticmethod
    def forward(
        ctx: Any,
        U: Tensor,
        X0: Tensor | None,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        activation: Activation,
        solver: Solver,
        adjoint_solver: Solver,
        report: LastSolution,
        tiles: bool,
    ) -> Tensor:
        # Columns are samples in memory: so these products are the fastest.
        Z = (B @ U.T).T
        report.forward = solve_dense(A, Z, X0, activation, solver, tiles=tiles)
        # Its own tensor: X becomes part of the graph, which holds the report.
        X = report.forward.value.detach()
        ctx.activation, ctx.solver, ctx.report = activation, adjoint_solver, report
        ctx.tiles = tiles
        kept = Z if activation.dphi_of_output is None else None
        ctx.save_for_backward(U, X, kept, A, B, C, D)
        return X @ C.T if D is None else torch.addmm((D @ U.T).T, X, C.T)

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        U, X, Z, A, B, C, D = ctx.saved_tensors
        V = _adjoint(ctx, A, X, Z, (C.T @ grad.T).T)
        grad_U = None
        if ctx.needs_input_grad[0]:
            grad_U = V @ B if D is None else torch.addmm(V @ B, grad, D)
        grad_D = None if D is None else grad.T @ U
        return grad_U, None, V.T @ X, V.T @ U, grad.T @ X, grad_D, None, None, None, None, None


def _adjoint(ctx: Any, A: Tensor, X: Tensor, Z: Tensor | None, grad: Tensor) -> Tensor:
    """The adjoint solution V (m, n) for the gradient of X; reported and checked."""
    if Z is None:
        slope = ctx.activation.dphi_of_output(X)
    else:
        slope = ctx.activation.dphi(torch.addmm(Z, X, A.T))
    ctx.report.adjoint = solve_dense_adjoint(
        A, slope, grad, ctx.solver, ctx.report.forward, tiles=ctx.tiles
    )
    ctx.report.adjoint.warn_unless_converged("the adjoint of the implicit model")
    return ctx.report.adjoint.value
