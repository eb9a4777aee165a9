"""The Triton operators as autograd nodes, and the models' equilibria in terms of them.

Gradients are by the implicit function theorem: one launch for the adjoint, then cuBLAS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastSolution, Solution, SolveStats
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.triton import ops  # noqa: F401 - registers the operators


@dataclass(frozen=True, eq=False)
class _How:
    """What a node is solved with, beside its tensors; `report` is None while torch compiles."""

    phi: str
    from_output: bool
    tol: float
    max_iter: int
    grad_tol: float
    grad_max_iter: int
    what: str
    report: LastSolution | None

    def tell(self, value: Tensor, figures: Tensor) -> None:
        """Report an adjoint solve."""
        if self.report is not None:
            solution = Solution(value, SolveStats(*figures.unbind()), self.grad_tol, relative=True)
            self.report.adjoint = solution
            solution.warn_unless_converged(f"the adjoint of {self.what}")


def _how(
    activation: Activation, solver: Solver, adjoint: Solver, what: str, report: LastSolution
) -> _How:
    assert activation.name is not None
    compiling = torch.compiler.is_compiling()
    return _How(
        activation.name,
        activation.dphi_of_output is not None,
        solver.tol,
        solver.max_iter,
        adjoint.tol,
        adjoint.max_iter,
        what,
        None if compiling else report,
    )


class _Chain(torch.autograd.Function):
    """States (steps, m, n), carries (steps, m, k) and figures (3, m) of a chain of equilibria.

    W (n + k, n + k) makes pre-activation and next carry out of state and last carry, drive
    (steps, m, n + k) is added to them; start is the first carry (m, k) or, where k = 0, the first
    guess (m, n), which has no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, W: Tensor, drive: Tensor, start: Tensor | None, k: int, how: _How
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, m, width = drive.shape
        n = width - k
        of_state, of_carry = (drive[..., :n], drive[..., n:]) if k else (drive, None)
        chain, figures = torch.ops.idl.solve_chain(
            W, of_state, of_carry, start, None,
            m, steps, k, how.phi, False, how.tol, how.max_iter,
        )  # fmt: skip
        ctx.how, ctx.k = how, k
        ctx.save_for_backward(W, chain, None if how.from_output else of_state)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(figures)
        if not k:
            return chain, chain.new_empty(steps, m, 0), figures
        return chain[:steps, :, :n], chain[1:, :, n:], figures

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        W, chain, drive = ctx.saved_tensors
        of_states, of_carries, _ = grads
        how, k = ctx.how, ctx.k
        n, m = len(W) - k, chain.shape[1]
        known = chain[:-1] if k else chain
        steps = len(known)
        point = known
        if drive is not None:
            point = torch.matmul(known, W[:n].T.to(known.dtype)) + drive
        last = None
        if k:
            # Nothing reaches the carries where only states were used.
            last = chain.new_zeros(m, k) if of_carries is None else of_carries[-1]
        adjoint, figures = torch.ops.idl.solve_chain(
            W, of_states, of_carries, last, point,
            m, steps, k, how.phi, True, how.grad_tol, how.grad_max_iter,
        )  # fmt: skip
        of_drive = adjoint[1:] if k else adjoint
        # A copy where the rest of the sequence would be kept with it.
        how.tell(of_drive[0, :, :n].clone() if k else of_drive[0], figures)
        of_W = None
        if ctx.needs_input_grad[0]:
            of_W = of_drive.flatten(0, 1).T @ known.flatten(0, 1)
        return of_W, of_drive, adjoint[0, :, n:] if k else None, None, None


class _LowRank(torch.autograd.Function):
    """X (m, n) and figures (3, m) from L, R (n, r) and Z (m, n); start y_0 (m, r)."""

    @staticmethod
    def forward(
        ctx: Any, L: Tensor, R: Tensor, Z: Tensor, start: Tensor | None, how: _How
    ) -> tuple[Tensor, Tensor]:
        X, y, figures = torch.ops.idl.solve_low_rank(
            L, R, Z, start, None, how.phi, False, how.tol, how.max_iter
        )
        ctx.how = how
        ctx.save_for_backward(L, R, X, y, None if how.from_output else Z)
        ctx.mark_non_differentiable(figures)
        return X, figures

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        L, R, X, y, Z = ctx.saved_tensors
        how = ctx.how
        point = X if Z is None else torch.addmm(Z.to(y.dtype), y, L.T.to(y.dtype))
        V, w, figures = torch.ops.idl.solve_low_rank(
            R, L, grads[0], None, point, how.phi, True, how.grad_tol, how.grad_max_iter
        )
        how.tell(w, figures)
        return V.T @ y, X.T @ w, V, None, None


def dense(
    A: Tensor,
    Z: Tensor,
    X0: Tensor | None,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    report: LastSolution,
) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n), differentiable in A (n, n) and Z (m, n); fills `report`."""
    how = _how(activation, solver, adjoint_solver, "the implicit model", report)
    X, _, figures = _Chain.apply(A, Z[None], X0, 0, how)
    report.forward = Solution(X[0].detach(), SolveStats(*figures.unbind()), how.tol)
    result: Tensor = X[0].to(_result((A, Z)))
    return result


def low_rank(
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
    how = _how(activation, solver, adjoint_solver, "the low-rank implicit model", report)
    start = None if X0 is None else X0.detach().to(R.dtype) @ R.detach()
    X, figures = _LowRank.apply(L, R, Z, start, how)
    report.forward = Solution(X.detach(), SolveStats(*figures.unbind()), how.tol)
    result: Tensor = X.to(_result((L, R, Z)))
    return result


def recurrent(
    left: Tensor,
    right: Tensor | None,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    U: Tensor,
    h0: Tensor,
    activation: Activation,
    solver: Solver,
    adjoint_solver: Solver,
    all_outputs: bool,
    report: LastSolution,
) -> Tensor:
    """All h_t (m, T, k) of an implicit RNN, or the last (m, k); fills `report`.

    The tensors are as of `idl_core.kernels.recurrent_equilibrium`, all differentiable.
    """
    p, k = U.shape[2], len(C)
    how = _how(activation, solver, adjoint_solver, "the implicit RNN", report)
    with torch.autocast(U.device.type, enabled=False):
        working = torch.promote_types(_result((left, B, C, D)), torch.float32)
        A = left if right is None else left.to(working) @ right.to(working).T
        rows = ((A, B[:, p:]), (C, D[:, p:]))
        W = torch.cat([torch.cat([part.to(working) for part in row], 1) for row in rows])
    # What the inputs drive is one product, before the first step.
    drive = F.linear(U.transpose(0, 1), torch.cat((B[:, :p], D[:, :p])))
    states, carries, figures = _Chain.apply(W, drive, h0, k, how)
    report.forward = Solution(states[-1].detach().clone(), SolveStats(*figures.unbind()), how.tol)
    outputs = carries.transpose(0, 1) if all_outputs else carries[-1]
    result: Tensor = outputs.to(_result((left, B, C, D, U, h0)))
    return result


def _result(tensors: tuple[Tensor, ...]) -> torch.dtype:
    return reduce(torch.promote_types, (t.dtype for t in tensors))
