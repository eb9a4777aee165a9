"""The autograd nodes: an equilibrium, a whole model, a sequence. They call a backend.

Gradients are exact, by the implicit function theorem. For X = φ(X Aᵀ + Z) and the gradient G of X,
the gradient of Z is the solution V of V = φ' ∘ (V A + G), and that of A is Vᵀ X.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idl_core.equilibrium.first_order import first_order_only
from idl_core.kernels import backend as backends
from idl_core.kernels.problem import Affine, Method, Model, Pass, Solved, solution_of

Gradients = tuple[Tensor | None, ...]


class Equilibrium(torch.autograd.Function):
    """X (m, n) with X = φ(X Aᵀ + Z), from A, which is left or left rightᵀ, and Z (m, n).

    Of Triton there is a second output: residual, bound and iterations (3, m).
    """

    @staticmethod
    def forward(
        ctx: Any,
        backend: str,
        method: Method,
        left: Tensor,
        right: Tensor | None,
        Z: Tensor,
        X0: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        found = backends.equilibrium(backend, Affine(left, right), Z, X0, method)
        ctx.backend, ctx.method, ctx.expected = backend, method, None
        if found.numbers is not None:
            ctx.mark_non_differentiable(found.numbers)
        elif method.report is not None and found.solution is not None:
            method.report.forward = found.solution
            ctx.expected = found.solution.common_iterations
        # Its own tensor: X becomes part of the graph, which must not hold itself by the report.
        X = found.states.detach()
        # Z is kept only where φ' cannot be had from X.
        kept = Z if method.activation.dphi_of_output is None else None
        ctx.save_for_backward(left, right, X, found.inner, kept)
        return X, found.numbers

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        left, right, X, inner, Z = ctx.saved_tensors
        method: Method = ctx.method
        solved = Solved(Affine(left, right), X, inner, Z, method)
        found = backends.equilibrium_adjoint(ctx.backend, solved, grads[0], ctx.expected)
        V = found.states
        if found.solution is not None:
            method.report_adjoint(found.solution)
        elif found.numbers is not None and method.report is not None:
            solver = method.adjoint_solver
            method.report_adjoint(solution_of(V, found.numbers, solver, relative=True))
        of_right = None
        if right is None:
            of_left = V.T @ X if ctx.needs_input_grad[2] else None
            if of_left is not None and ctx.backend == "triangular":
                of_left = of_left.triu(1)
        else:
            assert found.inner is not None
            of_left, of_right = (inner.T @ V).T, (found.inner.T @ X).T
        return None, None, of_left, of_right, V, None


class ModelOutput(torch.autograd.Function):
    """Ŷ = X Cᵀ + U Dᵀ (m, q) with X = φ(X Aᵀ + U Bᵀ), from the inputs U (m, p) and all matrices.

    As one node: at the sizes of these models the bookkeeping of separate ones takes as long as the
    mathematics.
    """

    @staticmethod
    def forward(
        ctx: Any,
        backend: str,
        method: Method,
        U: Tensor,
        X0: Tensor | None,
        *matrices: Tensor | None,
    ) -> Tensor:
        model = Model(*matrices)  # type: ignore[arg-type]
        found = backends.model_forward(backend, model, U, X0, method)
        X, inner, solution = found.found
        if method.report is not None:
            method.report.forward = solution
        ctx.backend, ctx.method, ctx.solution = backend, method, solution
        ctx.save_for_backward(U, X.detach(), inner, found.Z, *matrices)
        return found.Y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        U, X, inner, Z, *matrices = ctx.saved_tensors
        model, method = Model(*matrices), ctx.method
        known = backends.ModelPass(grad, Pass(X, inner, ctx.solution), Z)
        V, sums, solution = backends.model_backward(ctx.backend, model, U, known, grad, method)
        method.report_adjoint(solution)
        of_U = None
        if ctx.needs_input_grad[2]:
            of_U = V @ model.B if model.D is None else torch.addmm(V @ model.B, grad, model.D)
        return None, None, of_U, None, *sums


class RecurrentOutput(torch.autograd.Function):
    """All h_t (m, T, k) of an implicit RNN, or the last (m, k), from U (m, T, p), h0 (m, k) and the
    matrices, of which B (n, p + k) and D (k, p + k) have the columns of the inputs first.

    Of Triton there are two more outputs: the last states (m, n), which have no gradient, and
    residual, bound and iterations (3, m).
    """

    @staticmethod
    def forward(
        ctx: Any,
        backend: str,
        method: Method,
        all_outputs: bool,
        U: Tensor,
        h0: Tensor,
        *matrices: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        model = Model(*matrices)  # type: ignore[arg-type]
        ctx.backend, ctx.method = backend, method
        found = backends.sequence_forward(backend, model, U, h0, method, all_outputs)
        ctx.save_for_backward(U, h0, *matrices, *found.kept)
        if found.numbers is not None:
            ctx.mark_non_differentiable(found.last, found.numbers)
            return found.outputs, found.last, found.numbers
        if method.report is not None and found.solution is not None:
            method.report.forward = found.solution
            found.solution.warn_where_rounding_decides()
        return found.outputs.detach(), None, None  # of a view torch forbids to write to it in place

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        U, h0, *matrices = ctx.saved_tensors[:7]
        kept, model, method = ctx.saved_tensors[7:], Model(*matrices), ctx.method
        given = (ctx.backend, model, (U, h0), kept, grads[0], method)
        found = backends.sequence_backward(*given, ctx.needs_input_grad[3])
        method.report_adjoint(found.solution)
        return None, None, None, found.U, found.h0, *found.matrices
