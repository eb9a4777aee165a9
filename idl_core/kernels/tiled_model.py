"""An implicit model as one autograd node, by compiled tiles.

At the sizes of these models the bookkeeping of separate operations takes as long as the
mathematics: here a pass is one compiled call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastSolution
from idl_core.equilibrium.solvers import Picard
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
        found, Y = tiled.forward(of, batch, X0, activation, solver)
        report.forward = found.solution
        ctx.activation, ctx.solver, ctx.report = activation, adjoint_solver, report
        ctx.save_for_backward(U, found.states, found.inner, found.driven, left, right, B, C, D)
        return Y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        U, X, inner, driven, *matrices = ctx.saved_tensors
        batch, of = U.contiguous(), _contiguous(*matrices)
        known = Pass(X, inner, driven, ctx.report.forward)
        found, sums = tiled.backward(of, batch, known, grad, ctx.activation, ctx.solver)
        ctx.report.adjoint = found.solution
        found.solution.warn_unless_converged("the adjoint of the implicit model")
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
