"""What is solved, and how: the map of an affine equilibrium, and the method.

    X = φ(X Aᵀ + Z)                                 `Affine`: dense, or of a low rank
    Ŷ = X Cᵀ + U Dᵀ  with  Z = U Bᵀ                 `Model`: that with its inputs and outputs
    a sequence of equilibria, one driving the next  `Sequence`

All backends take these objects. Samples are rows, except in a `Sequence`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import LastSolution, Solution
from idl_core.equilibrium.solvers import Solver


class Affine(NamedTuple):
    """The map X -> X Aᵀ. A (n, n) is `left` or, of a low rank r, left rightᵀ, which is never formed
    from these factors (n, r)."""

    left: Tensor
    right: Tensor | None = None


class Model(NamedTuple):
    """The matrices of an implicit model: A as in `Affine`, B (n, p), C (q, n), D (q, p) or none.

    Of a recurrent one the inputs are (u_t, h_{t-1}), in this order, and the outputs are h_t.
    """

    left: Tensor
    right: Tensor | None
    B: Tensor
    C: Tensor
    D: Tensor | None

    @property
    def A(self) -> Affine:
        return Affine(self.left, self.right)

    def contiguous(self) -> Model:
        """The same, all matrices contiguous."""
        return Model(*(None if M is None else M.contiguous() for M in self))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Method:
    """How an equilibrium and its adjoint are solved.

    Attributes:
        activation: φ.
        solver, adjoint_solver: the adjoint's tolerance is relative, for each sample, to the largest
            gradient that has reached it.
        report: what the solves did is written there; None writes nothing.
        kernel: "auto", or the backend that alone may solve: "torch", "numba", "triton".
        what: the name of the model in warnings.
    """

    activation: Activation
    solver: Solver
    adjoint_solver: Solver
    report: LastSolution | None
    kernel: str = "auto"
    what: str = "the implicit model"

    def while_compiling(self) -> Method:
        """The same, without a report where torch.compile traces: a graph writes to no object."""
        return replace(self, report=None) if torch.compiler.is_compiling() else self

    def report_adjoint(self, solution: Solution) -> None:
        """Write down an adjoint solve, and warn where it did not converge."""
        if self.report is not None:
            self.report.adjoint = solution
            solution.warn_unless_converged(f"the adjoint of {self.what}")


class Found(NamedTuple):
    """A solved equilibrium or adjoint.

    Attributes:
        states: X or, in the adjoint, V (m, n).
        inner: of a low rank, X right or V left (m, r).
        solution: how it was solved; None where `numbers` tell it.
        numbers: (3, m) residual, bound and iterations as one tensor, which can leave a graph of
            torch.compile; None where there is a solution.
    """

    states: Tensor
    inner: Tensor | None
    solution: Solution | None
    numbers: Tensor | None = None


def solution_of(value: Tensor, numbers: Tensor, solver: Solver, *, relative: bool) -> Solution:
    """The outcome of a solve whose `numbers` (3, m) may still be on their way."""
    return Solution(value, numbers, solver.tol, relative)


class Solved(NamedTuple):
    """A solved equilibrium as its adjoint needs it.

    Attributes:
        A: the map.
        X: the states (m, n).
        inner: X right (m, r) where A is of a low rank.
        Z: (m, n); None where φ' is a function of φ's value.
        method: how it was solved.
    """

    A: Affine
    X: Tensor
    inner: Tensor | None
    Z: Tensor | None
    method: Method

    def preactivation(self) -> Tensor:
        """X Aᵀ + Z (m, n)."""
        assert self.Z is not None
        if self.A.right is None:
            return torch.addmm(self.Z.to(self.X.dtype), self.X, self.A.left.T.to(self.X.dtype))
        assert self.inner is not None
        return torch.addmm(self.Z.to(self.X.dtype), self.inner, self.A.left.T.to(self.X.dtype))

    def slope(self) -> Tensor:
        """φ' at the pre-activation (m, n)."""
        activation = self.method.activation
        if activation.dphi_of_output is not None:
            return activation.dphi_of_output(self.X)
        return activation.dphi(self.preactivation())


class Pass(NamedTuple):
    """A pass through a whole model.

    Attributes:
        states: X or, backwards, V (m, n).
        inner: of a low rank, the product of X and right or of V and left, samples last (r, m).
        solution: None where it has not been found; then nothing else is known.
    """

    states: Tensor
    inner: Tensor | None
    solution: Solution | None


class SequencePass(NamedTuple):
    """A pass through a whole sequence.

    Attributes:
        outputs: all h_t (m, T, k), or the last (m, k).
        kept: what the backward pass needs beside the tensors that were given.
        solution: how it was solved; None where `numbers` tell it.
        last: the last states (m, n), and numbers (3, m), as of `Found`; None where there is a
            solution.
        numbers: see there.
    """

    outputs: Tensor
    kept: tuple[Tensor | None, ...]
    solution: Solution | None
    last: Tensor | None = None
    numbers: Tensor | None = None


class SequenceGradients(NamedTuple):
    """The gradients of the matrices, of U (m, T, p), which may be left out, and of h0 (m, k), and
    how the adjoint was solved."""

    matrices: Model
    U: Tensor | None
    h0: Tensor
    solution: Solution


@dataclass(frozen=True)
class Sequence:
    """Equilibria in a row: what drives a step comes from the step before.

    It has at step j a state s_j (n, m), a carry c_j (k, m) and a drive d_j (n, m), and is given
    inputs w_j (p, m) and a_j (k, m):

        c_j = K (s_{j-1}, c_{j-1}, w_{j-1}) + a_j       and c_0, which is given
        d_j = E (c_j, w_j)
        s_j = finish(M s_j + d_j, j)                    the equilibrium

    An implicit RNN is one forwards in time (the carry is its hidden state); its adjoint is another,
    backwards (the carry is the hidden state's gradient). Features are the rows here and samples the
    columns, so that (state, carry, input) is one contiguous block of rows.

    Attributes:
        left, right: M (n, n), or its factors (n, r) where M = left rightᵀ, which is never formed.
        finish: φ, or the slopes (steps, n, m) that take its place in an adjoint.
        into_carry: K (k, n + k + p).
        into_drive: E (n, k + p).
        first_carry: c_0 (k, m).
        inputs: w (steps, p, m); p may be 0.
        added: a (steps, k, m), of which a_0 is not used; None: zeros.
    """

    left: Tensor
    right: Tensor | None
    finish: Activation | Tensor
    into_carry: Tensor
    into_drive: Tensor
    first_carry: Tensor
    inputs: Tensor
    added: Tensor | None = None

    @property
    def is_adjoint(self) -> bool:
        """Whether it is linear, and its tolerance relative."""
        return isinstance(self.finish, Tensor)


_EXPONENT = {torch.float32: (torch.int32, 0xFF << 23), torch.float64: (torch.int64, 0x7FF << 52)}


def power_of_two(size: Tensor) -> Tensor:
    """The power of two at or below each positive number, the nearest that there is for 0, infinity
    and what is not a number."""
    whole, mask = _EXPONENT[size.dtype]
    limits = torch.finfo(size.dtype)
    return (size.view(whole) & mask).view(size.dtype).clamp_(limits.tiny, 0.5 / limits.tiny)


def unit_of_each(grad: Tensor) -> Tensor:
    """For each sample of a gradient (m, n) the power of two at or below its largest magnitude
    (m, 1).

    An adjoint equation is linear: divided by these units it is solved alike at every scale of the
    gradient, without rounding, and no sample is another's concern.
    """
    if not grad.shape[1]:
        return grad.new_ones(len(grad), 1)
    return power_of_two(torch.linalg.vector_norm(grad, math.inf, 1, keepdim=True))
