"""A sequence of equilibria by numba's programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from idl_core.equilibrium.solution import Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import support
from idl_core.kernels.numba.memory import array
from idl_core.kernels.numba.support import limits, phi, programs
from idl_core.kernels.problem import Sequence


def obstacle(sequence: Sequence, *solvers: Solver) -> str | None:
    """Why a sequence cannot be solved here."""
    (steps, p, m), k = sequence.inputs.shape, len(sequence.first_carry)
    n = len(sequence.into_drive)
    width = n if sequence.right is None else sequence.right.shape[-1]
    slopes = sequence.finish if isinstance(sequence.finish, Tensor) else None
    expected = (
        (sequence.inputs, (steps, p, m)),
        (sequence.left, (n, width or n)),
        (sequence.right, (n, width)),
        (sequence.into_carry, (k, n + k + p)),
        (sequence.into_drive, (n, k + p)),
        (sequence.first_carry, (k, m)),
        (sequence.added, (steps, k, m)),
        (slopes, (steps, n, m)),
    )
    return support.obstacle(sequence.finish, solvers, expected)


class SolvedSequence:
    """A sequence that is solved; see `idl_core.kernels.recurrence.SolvedSequence`."""

    def __init__(self, sequence: Sequence, slots: Tensor, solution: Solution) -> None:
        self.sequence, self.slots, self._solution = sequence, slots, solution

    def run(self) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, len(self.slots), self.slots

    def last_carry(self) -> Tensor:
        return self.sequence.into_carry @ self.slots[-1]

    def solution(self) -> Solution:
        return self._solution


def solve(sequence: Sequence, solver: Solver) -> SolvedSequence:
    """All steps; of an adjoint each sample in units of its largest drive so far."""
    assert isinstance(solver, Picard)
    (steps, _, m), (n, rest) = sequence.inputs.shape, sequence.into_drive.shape
    like, relative = sequence.inputs, sequence.is_adjoint
    slots, figures = like.new_empty(steps, n + rest, m), like.new_zeros(3, m)
    outcome = programs().sequence.Outcome(slots.numpy(), figures.numpy())
    bounds = limits(solver, phi(sequence.finish), like.dtype, relative)
    given = _arrays(sequence)
    converged = programs().sequence.solve(given, bounds, outcome, torch.get_num_threads())
    state = slots[-1, :n].T.clone()
    return SolvedSequence(
        sequence, slots, Solution(state, figures, solver.tol, relative, converged)
    )


def recall(sequence: Sequence, X: Tensor) -> Tensor:
    """State, carry and input of all steps (steps, n + k + p, m), the last first, from the states
    X (steps, n, m)."""
    steps, n, m = X.shape
    slots = X.new_empty(steps, n + sequence.into_drive.shape[1], m)
    given, threads = _arrays(sequence), torch.get_num_threads()
    programs().sequence.recall(given, array(X), slots.numpy(), threads)
    return slots


def _arrays(sequence: Sequence) -> Any:
    n, nothing = len(sequence.into_drive), sequence.inputs[:0]
    K, left, right = sequence.into_carry.T, sequence.left, sequence.right
    inner, outer = (left[:, :0] if right is None else right), left.T
    slopes = sequence.finish if isinstance(sequence.finish, Tensor) else nothing
    added = nothing if sequence.added is None else sequence.added
    return programs().sequence.Arrays(
        *(array(M) for M in (inner, outer, sequence.into_drive.T, K[:n], K[n:])),
        *(array(x) for x in (sequence.first_carry, sequence.inputs, added, slopes)),
    )
