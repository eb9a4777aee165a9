"""A whole sequence of an implicit RNN as one autograd node that keeps the equilibria and no more.

    X_t = φ(A X_t + B_h h_{t-1} + B_u u_t)          C, D split by columns as B is: D = [D_u, D_h]
    h_t = C X_t + D_h h_{t-1} + D_u u_t

Here features are rows and samples columns, as in `idl_core.kernels.sweep`, which solves both the
sequence and its adjoint:

    V_t = φ'_t ∘ (Aᵀ V_t + Cᵀ g_t)                  g_t: gradient of h_t, by way of the later steps
    g_{t-1} = B_hᵀ V_t + D_hᵀ g_t + (gradient of the output h_{t-1})

Between the two passes only the X_t are kept, T·m·n numbers: the h_t are affine in them, and are
formed again. The gradients of all the matrices are one product of [V; g] with [X; h; u].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastSolution
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels import choice
from idl_core.kernels.numba import solves as tiled
from idl_core.kernels.sweep import Chain, Sweep


@dataclass(frozen=True)
class Recurrence:
    """What a sequence is solved with, beside its tensors.

    Attributes:
        activation: φ.
        solver, adjoint_solver: of every step; the adjoint's tolerance is relative to the largest
            gradient that has reached an equilibrium, of this step or a later one.
        all_outputs: give all h_t, not only the last.
        report: what the solves did is told here.
        kernel: "auto", "torch" or "triton".
    """

    activation: Activation
    solver: Solver
    adjoint_solver: Solver
    all_outputs: bool
    report: LastSolution
    kernel: str = "auto"


class RecurrentEquilibrium(torch.autograd.Function):
    """All h_t (m, T, k), or the last (m, k), from the matrices and the inputs.

    A is `left` (n, n) where `right` is None, else left @ right.T, both (n, r). B (n, p + k) and
    D (k, p + k) have the columns of the inputs first. U is (m, T, p), h0 (m, k).
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor | None,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        U: Tensor,
        h0: Tensor,
        how: Recurrence,
    ) -> Tensor:
        m, T, (k, n) = U.shape[0], U.shape[1], C.shape
        sweep = _solved(
            _chain(left, right, B, C, D, U, h0, how), how.solver, choice.by_tiles(how.kernel)
        )
        X = U.new_empty(T, n, m)
        h = U.new_empty(T, k, m) if how.all_outputs else None
        for first, end, slots in sweep.run():
            X[first:end] = slots[:, :n]
            if h is not None:  # a slot has the h of the step before
                skip = 1 if first == 0 else 0
                h[first + skip - 1 : end - 1] = slots[skip:, n : n + k]
        last = sweep.last_carry()
        how.report.forward = solution = sweep.solution()
        solution.warn_where_rounding_decides()
        ctx.how = how
        ctx.save_for_backward(left, right, B, C, D, U, h0, X)
        if h is None:
            return last.T.detach()  # of a view torch forbids users to write to it in place
        h[T - 1] = last
        return h.permute(2, 0, 1).detach()

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right, B, C, D, U, h0, X = ctx.saved_tensors
        how: Recurrence = ctx.how
        T, m, p = X.shape[0], U.shape[0], U.shape[2]
        known = _recalled(_chain(left, right, B, C, D, U, h0, how), X, choice.by_tiles(how.kernel))
        # The chain runs backwards: its step j is time T - 1 - j.
        of_h = grad.permute(1, 2, 0).flip(0) if how.all_outputs else None
        chain = Chain(
            left.T if right is None else right,
            None if right is None else left,
            _slopes(how.activation, left, right, B, p, known),
            torch.cat((B[:, p:].T, D[:, p:].T), 1),
            C.T,
            grad.T if of_h is None else of_h[0],
            X.new_empty(T, 0, m),
            of_h,
        )
        sweep = _solved(chain, how.adjoint_solver, choice.by_tiles(how.kernel), relative=True)
        sums = _GradientSums(left, right, len(C), p)
        gU = U.new_empty(T, p, m) if ctx.needs_input_grad[5] else None
        from_U = torch.cat((B[:, :p], D[:, :p])).T
        for first, end, slots in sweep.run():
            sums.add(slots, known[first:end])
            if gU is not None:
                gU[T - end : T - first] = torch.matmul(from_U, slots).flip(0)
        how.report.adjoint = sweep.solution()
        how.report.adjoint.warn_unless_converged("the adjoint of the implicit RNN")
        gU = None if gU is None else gU.permute(2, 0, 1)
        return *sums.gradients(), gU, sweep.last_carry().T, None


def _solved(
    chain: Chain, solver: Solver, tiles: bool, *, relative: bool = False
) -> Sweep | tiled.SolvedChain:
    """The chain, by tiles where they may and can, else step by step."""
    by_tiles = tiled.solve_chain(chain, solver, relative) if tiles else None
    return Sweep(chain, solver, relative=relative) if by_tiles is None else by_tiles


def _recalled(chain: Chain, X: Tensor, tiles: bool) -> Tensor:
    """States, carries and inputs of all steps (T, n + k + p, m), the last step first.

    The carries are formed again from the states X (T, n, m), in which they are affine.
    """
    by_tiles = tiled.recall(chain, X) if tiles else None
    if by_tiles is not None:
        return by_tiles
    (T, n, m), (k, rows) = X.shape, chain.into_carry.shape
    known = X.new_empty(T, rows, m)
    known[:, :n], known[:, n + k :] = X.flip(0), chain.inputs.flip(0)
    slots, carries = known.unbind(0), known[:, n : n + k].unbind(0)
    carries[-1].copy_(chain.first_carry)
    for j in range(T - 1, 0, -1):
        torch.mm(chain.into_carry, slots[j], out=carries[j - 1])
    return known


def _chain(
    left: Tensor,
    right: Tensor | None,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    U: Tensor,
    h0: Tensor,
    how: Recurrence,
) -> Chain:
    """The sequence: its carries are the hidden states."""
    p = U.shape[2]
    into_h, into_X = _inputs_last((C, D), p), _inputs_last((B,), p)
    return Chain(left, right, how.activation, into_h, into_X, h0.T, U.permute(1, 2, 0))


def _inputs_last(matrices: tuple[Tensor, ...], p: int) -> Tensor:
    """The matrices side by side, the first p columns of the last of them moved to the end."""
    *others, last = matrices
    return torch.cat((*others, last[:, p:], last[:, :p]), 1)


def _slopes(
    activation: Activation, left: Tensor, right: Tensor | None, B: Tensor, p: int, known: Tensor
) -> Tensor:
    """φ' at the pre-activation of every step (T, n, m), in the order of `known`."""
    X = known[:, : len(left)]
    if activation.dphi_of_output is not None:
        return activation.dphi_of_output(X)
    pre = torch.matmul(_inputs_last((B,), p), known[:, len(left) :])
    pre += torch.matmul(left, X if right is None else torch.matmul(right.T, X))
    # Flattened: an activation that a user wrote may take matrices only.
    return activation.dphi(pre.flatten(0, 1)).unflatten(0, (len(X), len(left)))


class _GradientSums:
    """Gradients of A (or its factors), B, C and D, summed over the steps chunk by chunk."""

    def __init__(self, left: Tensor, right: Tensor | None, k: int, p: int) -> None:
        self.left, self.right, self.sizes = left, right, (len(left), k, p)
        # Rows belong to V and g, columns to X, h and u.
        self.sums = left.new_zeros(len(left) + k, len(left) + k + p)
        self.of_left, self.of_right = torch.zeros_like(left), None
        if right is not None:
            self.of_right = torch.zeros_like(right)

    def add(self, slots: Tensor, known: Tensor) -> None:
        """Add a chunk: V and g (steps, n + k, m), X and h and u (steps, n + k + p, m)."""
        n = self.sizes[0]
        if self.right is None or self.of_right is None:
            self.sums += _outer(slots, known)
            return
        # V Xᵀ (n, n) is what a low-rank A is meant to avoid.
        V, X = slots[:, :n], known[:, :n]
        self.sums[:n, n:] += _outer(V, known[:, n:])
        self.sums[n:] += _outer(slots[:, n:], known)
        self.of_left += _outer(V, torch.matmul(self.right.T, X))
        self.of_right += _outer(X, torch.matmul(self.left.T, V))

    def gradients(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        """Of left, right, B, C and D."""
        n = self.sizes[0]
        of_A, h_to_X, u_to_X = self.sums[:n].split(self.sizes, 1)
        of_C, h_to_h, u_to_h = self.sums[n:].split(self.sizes, 1)
        return (
            of_A if self.right is None else self.of_left,
            self.of_right,
            torch.cat((u_to_X, h_to_X), 1),
            of_C,
            torch.cat((u_to_h, h_to_h), 1),
        )


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Σ_t left_t right_tᵀ: (steps, a, m), (steps, b, m) -> (a, b)."""
    return torch.bmm(left, right.mT).sum(0)
