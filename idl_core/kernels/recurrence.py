"""An implicit RNN over a whole sequence, forwards and backwards, which keeps the states alone.

    X_t = φ(A X_t + B_h h_{t-1} + B_u u_t)          C, D split by columns as B is: D = [D_u, D_h]
    h_t = C X_t + D_h h_{t-1} + D_u u_t

Here features are rows and samples columns, as in `Sequence`. The adjoint is one too:

    V_t = φ'_t ∘ (Aᵀ V_t + Cᵀ g_t)                  g_t: gradient of h_t, by way of the later steps
    g_{t-1} = B_hᵀ V_t + D_hᵀ g_t + (gradient of the output h_{t-1})

Between the two passes only the X_t are kept, T·m·n numbers: the h_t are affine in them, and are
formed again. The gradients of all the matrices are one product of [V; g] with [X; h; u].

What solves the sequences is given: this is the same for torch and for numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import Solution
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.problem import Method, Model, Sequence, SequenceGradients, SequencePass


class SolvedSequence(Protocol):
    """A sequence that is solved, perhaps while it is read."""

    def run(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yields (first, last + 1, slots): steps solved, and their states, carries and inputs in
        the rows of slots (steps, n + k + p, m), which hold until the next are asked for."""

    def last_carry(self) -> Tensor:
        """The carry (k, m) that the last step leaves, nothing added."""

    def solution(self) -> Solution:
        """All steps as one: the last state (m, n), and for each sample the worst of all steps."""


Solve = Callable[[Sequence, Solver], SolvedSequence]
Recall = Callable[[Sequence, Tensor], Tensor]


def forward(
    model: Model, U: Tensor, h0: Tensor, method: Method, all_outputs: bool, solve: Solve
) -> SequencePass:
    """Run an RNN over the inputs U (m, T, p), T ≥ 1, from h0 (m, k).

    Keeps the states X (T, n, m).
    """
    m, T, (k, n) = U.shape[0], U.shape[1], model.C.shape
    solved = solve(_sequence(model, U, h0, method), method.solver)
    X = U.new_empty(T, n, m)
    h = U.new_empty(T, k, m) if all_outputs else None
    for first, end, slots in solved.run():
        X[first:end] = slots[:, :n]
        if h is not None:  # a slot has the h of the step before
            skip = 1 if first == 0 else 0
            h[first + skip - 1 : end - 1] = slots[skip:, n : n + k]
    last = solved.last_carry()
    if h is None:
        return SequencePass(last.T, (X,), solved.solution())
    h[T - 1] = last
    return SequencePass(h.permute(2, 0, 1), (X,), solved.solution())


def backward(
    model: Model,
    inputs: tuple[Tensor, Tensor],
    X: Tensor,
    grad: Tensor,
    method: Method,
    solve: Solve,
    recall: Recall,
    needs_U: bool,
) -> SequenceGradients:
    """The gradients, for that of all outputs (m, T, k) or of the last (m, k).

    Args:
        inputs: U and h0.
        X: the states (T, n, m) of the forward pass.
        needs_U: whether that of U is wanted.
    """
    U, h0 = inputs
    T, m, p = X.shape[0], U.shape[0], U.shape[2]
    known = recall(_sequence(model, U, h0, method), X)
    left, right = model.A
    B, C, D = model.B, model.C, model.D
    assert D is not None
    # It runs backwards: its step j is time T - 1 - j.
    of_h = grad.permute(1, 2, 0).flip(0) if grad.dim() == 3 else None
    adjoint = Sequence(
        left.T if right is None else right,
        None if right is None else left,
        _slopes(method.activation, model, p, known),
        torch.cat((B[:, p:].T, D[:, p:].T), 1),
        C.T,
        grad.T if of_h is None else of_h[0],
        X.new_empty(T, 0, m),
        of_h,
    )
    solved = solve(adjoint, method.adjoint_solver)
    sums = _GradientSums(model, p)
    of_U = U.new_empty(T, p, m) if needs_U else None
    from_U = torch.cat((B[:, :p], D[:, :p])).T
    for first, end, slots in solved.run():
        sums.add(slots, known[first:end])
        if of_U is not None:
            of_U[T - end : T - first] = torch.matmul(from_U, slots).flip(0)
    of_U = None if of_U is None else of_U.permute(2, 0, 1)
    return SequenceGradients(sums.gradients(), of_U, solved.last_carry().T, solved.solution())


def recall(sequence: Sequence, X: Tensor) -> Tensor:
    """States, carries and inputs of all steps (T, n + k + p, m), the last step first.

    The carries are formed again from the states X (T, n, m), in which they are affine.
    """
    (T, n, m), (k, rows) = X.shape, sequence.into_carry.shape
    known = X.new_empty(T, rows, m)
    known[:, :n], known[:, n + k :] = X.flip(0), sequence.inputs.flip(0)
    slots, carries = known.unbind(0), known[:, n : n + k].unbind(0)
    carries[-1].copy_(sequence.first_carry)
    for j in range(T - 1, 0, -1):
        torch.mm(sequence.into_carry, slots[j], out=carries[j - 1])
    return known


def _sequence(model: Model, U: Tensor, h0: Tensor, method: Method) -> Sequence:
    """The RNN as a sequence of equilibria: its carries are the hidden states."""
    p = U.shape[2]
    assert model.D is not None
    into_h, into_X = _inputs_last((model.C, model.D), p), _inputs_last((model.B,), p)
    return Sequence(*model.A, method.activation, into_h, into_X, h0.T, U.permute(1, 2, 0))


def _inputs_last(matrices: tuple[Tensor, ...], p: int) -> Tensor:
    """The matrices side by side, the first p columns of the last of them moved to the end."""
    *others, last = matrices
    return torch.cat((*others, last[:, p:], last[:, :p]), 1)


def _slopes(activation: Activation, model: Model, p: int, known: Tensor) -> Tensor:
    """φ' at the pre-activation of every step (T, n, m), in the order of `known`."""
    left, right = model.A
    X = known[:, : len(left)]
    if activation.dphi_of_output is not None:
        return activation.dphi_of_output(X)
    pre = torch.matmul(_inputs_last((model.B,), p), known[:, len(left) :])
    pre += torch.matmul(left, X if right is None else torch.matmul(right.T, X))
    # Flattened: an activation that a user wrote may take matrices only.
    slope: Tensor = activation.dphi(pre.flatten(0, 1)).unflatten(0, (len(X), len(left)))
    return slope


class _GradientSums:
    """Gradients of A (or its factors), B, C and D, summed over the steps chunk by chunk."""

    def __init__(self, model: Model, p: int) -> None:
        (left, right), k = model.A, len(model.C)
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

    def gradients(self) -> Model:
        """Of all the matrices."""
        n = self.sizes[0]
        of_A, h_to_X, u_to_X = self.sums[:n].split(self.sizes, 1)
        of_C, h_to_h, u_to_h = self.sums[n:].split(self.sizes, 1)
        return Model(
            of_A if self.right is None else self.of_left,
            self.of_right,
            torch.cat((u_to_X, h_to_X), 1),
            of_C,
            torch.cat((u_to_h, h_to_h), 1),
        )


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Σ_t left_t right_tᵀ: (steps, a, m), (steps, b, m) -> (a, b)."""
    return torch.bmm(left, right.mT).sum(0)
