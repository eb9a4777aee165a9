"""An implicit model as one autograd node, by compiled tiles.

At the sizes of these models the bookkeeping of separate operations takes as long as the
mathematics: here a pass is one compiled call. What tiles cannot solve, torch does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastSolution
from idl_core.equilibrium.solvers import Picard
from idl_core.kernels.dense import solve_dense, solve_dense_adjoint
from idl_core.kernels.low_rank import solve_low_rank, solve_low_rank_adjoint
from idl_core.kernels.numba import models as tiled
from idl_core.kernels.numba.models import Pass, Weights


class TiledModel(torch.autograd.Function):
    """Ŷ = X Cᵀ + U Dᵀ with X = φ(X Aᵀ + U Bᵀ), A being left or, of a low rank, left rightᵀ.

    Its gradients are exact, by the implicit function theorem. `tiled.suits` must hold.
    """

    @staticmethod
    def forward(
        ctx: Any,
        U: Tensor,
        X0: Tensor | None,
        left: Tensor,
        right: Tensor | None,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        activation: Activation,
        solver: Picard,
        adjoint_solver: Picard,
        report: LastSolution,
    ) -> Tensor:
        batch, of = U.contiguous(), _contiguous(left, right, B, C, D)
        found, Y, driven = tiled.forward(of, batch, X0, activation, solver)
        ctx.by_tiles = found.solution is not None
        if found.solution is None:
            Z, DU = tiled.drives(driven, len(U), *C.shape[::-1])
            found = _solve_by_torch(of, Z, X0, activation, solver)
            Y = torch.addmm(DU, found.states, C.T)
        report.forward = found.solution
        ctx.activation, ctx.solver, ctx.report = activation, adjoint_solver, report
        ctx.save_for_backward(U, found.states, found.inner, left, right, B, C, D)
        return Y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        U, X, inner, *matrices = ctx.saved_tensors
        batch, of = U.contiguous(), _contiguous(*matrices)
        known, solution = Pass(X, inner, ctx.report.forward), None
        if ctx.by_tiles:  # else it would be as slow for them as the forward solve
            found, sums = tiled.backward(of, batch, known, grad, ctx.activation, ctx.solver)
            solution = found.solution
        if solution is None:
            found = _adjoint_by_torch(of, known, grad, ctx.activation, ctx.solver)
            sums, solution = tiled.gradients(of, batch, known, found, grad), found.solution
        assert solution is not None
        ctx.report.adjoint = solution
        solution.warn_unless_converged("the adjoint of the implicit model")
        grad_U = None
        if ctx.needs_input_grad[0]:
            grad_U = found.states @ of.B
            if of.D is not None:
                grad_U.addmm_(grad, of.D)
        return grad_U, None, *sums, None, None, None, None


def _contiguous(
    left: Tensor, right: Tensor | None, B: Tensor, C: Tensor, D: Tensor | None
) -> Weights:
    return Weights(
        left.contiguous(),
        None if right is None else right.contiguous(),
        B.contiguous(),
        C.contiguous(),
        None if D is None else D.contiguous(),
    )


def _solve_by_torch(
    of: Weights, Z: Tensor, X0: Tensor | None, activation: Activation, solver: Picard
) -> Pass:
    """X = φ(X Aᵀ + Z), for what is too slow for tiles or not finite."""
    if of.right is None:
        solution = solve_dense(of.left, Z, X0, activation, solver, tiles=False)
        return Pass(solution.value.contiguous(), None, solution)
    X, solution = solve_low_rank(of.left, of.right, Z, X0, activation, solver)
    return Pass(X.contiguous(), solution.value.T.contiguous(), solution)


def _adjoint_by_torch(
    of: Weights, known: Pass, grad: Tensor, activation: Activation, solver: Picard
) -> Pass:
    """V = φ'(X) ∘ (V A + grad C), likewise."""
    assert activation.dphi_of_output is not None
    assert known.solution is not None
    slope, pulled = activation.dphi_of_output(known.states), grad @ of.C
    given = (slope, pulled, solver, known.solution)
    if of.right is None:
        solution = solve_dense_adjoint(of.left, *given, tiles=False)
        return Pass(solution.value.contiguous(), None, solution)
    V, solution = solve_low_rank_adjoint(of.left, of.right, *given)
    return Pass(V.contiguous(), solution.value.T.contiguous(), solution)
