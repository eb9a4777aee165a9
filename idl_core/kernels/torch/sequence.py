"""A sequence of equilibria (`idl_core.kernels.problem.Sequence`) in torch.

All steps of a chunk are iterated equally often, each from the state of the step before, and only
then are their residuals measured, together: one host synchronisation a chunk. Steps that are short
of their tolerance are taken up again from where they are. How many iterations a chunk starts with
is learnt from the chunk before. Where that is many, every step is handed to the solver, which knows
how to accelerate.

A sample that is not finite takes part in no decision: the others go on as if it were not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from idl_core.equilibrium.solution import ROUNDING_UNITS, Solution, SolveStats
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.problem import Sequence, power_of_two
from idl_core.kernels.torch.dense import ONE

# Iterations of the very first steps, of which nothing is known yet.
_FIRST_COUNT = 2
# The first chunk is short, to learn from; each is twice as long as the one before, up to the last.
_FIRST_CHUNK, _LAST_CHUNK = 4, 64
# Numbers in a chunk's buffer (1 MiB of float32): beyond, it leaves the cache.
_CHUNK_NUMBERS = 1 << 18
# Plain iterations from which the solver's acceleration is worth its overhead.
_SLOW = 64
# Of an iteration: how far predictions are rounded to the safe side.
_MARGIN = 0.3
_TINY = 1e-30


def _affine(sequence: Sequence) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(drive, state, out) -> M state + drive, written into out."""
    left, right = sequence.left, sequence.right
    if right is None:
        return lambda drive, x, out: torch.addmm(drive, left, x, out=out)
    small, transposed = left.new_empty(right.shape[1], sequence.inputs.shape[2]), right.T
    return lambda drive, x, out: torch.addmm(
        drive, left, torch.mm(transposed, x, out=small), out=out
    )


def _finisher(sequence: Sequence) -> Callable[[Tensor, int], Tensor]:
    """(pre-activation, number of the step) -> state; may overwrite its argument."""
    if isinstance(sequence.finish, Tensor):
        slopes = sequence.finish.unbind(0)
        return lambda pre, j: pre.mul_(slopes[j])
    phi_ = sequence.finish.phi_
    return lambda pre, j: phi_(pre)


class SequenceSolver:
    """Solves a sequence, chunk by chunk.

    Args:
        sequence: what to solve. Where it is an adjoint, the tolerance of each sample is in units of
            its largest drive so far (of those looked at: one a chunk).
        solver: its tolerance holds for every step; its max_iter is a step's.
    """

    def __init__(self, sequence: Sequence, solver: Solver) -> None:
        self.solver, self.relative = solver, sequence.is_adjoint
        steps, _, m = sequence.inputs.shape
        rows = sum(sequence.into_carry.shape) + len(sequence.into_drive)
        longest = max(_FIRST_CHUNK, min(_LAST_CHUNK, _CHUNK_NUMBERS // max(1, rows * m)))
        self._longest = longest
        self._steps, self._buffers = steps, _Buffers(sequence, min(longest, max(1, steps)))
        self._one_by_one = not isinstance(solver, Picard)
        self._can_accelerate = isinstance(solver, Picard) and solver.then is not None
        self._largest = sequence.inputs.new_zeros(m)  # drive of each sample that was looked at
        self._count, self._rate = _FIRST_COUNT, math.nan
        self._stats = SolveStats(*sequence.inputs.new_zeros(3, m).unbind())
        self._all_converged = True

    def run(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yields (first, last + 1, slots): steps solved, and their states, carries and inputs in
        the rows of slots (steps, n + k + p, m), which hold until the next are asked for."""
        done, size, buffers = 0, _FIRST_CHUNK, self._buffers
        while done < self._steps:
            size = min(size, self._steps - done)
            buffers.begin(done, size)
            self._settle()
            if self.relative:
                self._largest = torch.maximum(self._largest, buffers.largest_drive(size - 1))
            yield done, done + size, buffers.heads[:size]
            done, size = done + size, min(2 * size, self._longest)

    def last_carry(self) -> Tensor:
        """The carry (k, m) that the last step leaves, nothing added."""
        return self._buffers.sequence.into_carry @ self._buffers.last_head()

    def solution(self) -> Solution:
        """All steps as one: the last state (m, n), and for each sample the worst of all steps, in
        units of its drive where that is what the tolerance is in."""
        state = self._buffers.last_head()[: self._buffers.n].T.clone()
        return Solution(state, self._stats, self.solver.tol, self.relative, self._all_converged)

    def _settle(self) -> None:
        """Bring all steps of a chunk to their tolerance, or to the most iterations allowed."""
        most, total, first = self.solver.max_iter, 0, 0
        count, worst_before = min(self._count, most), math.nan
        while not self._one_by_one:
            self._buffers.iterate(first, count, again=total > 0)
            total += count
            unit = self._unit()
            worst, over, stats = self._measure(unit, total)
            if worst < worst_before:
                self._rate = math.log(worst_before / max(worst, _TINY)) / count
            if over is None or worst <= 1 or total >= most:
                self._count = max(1, total - self._spare(worst))
                self._record(stats, over is None)
                return
            more = _SLOW if worst >= worst_before else self._iterations_left(worst)
            first = int(over.nonzero()[0])
            count, worst_before = min(more, most - total), worst
            self._one_by_one = self._can_accelerate and total + more > _SLOW
            if self._one_by_one and first:
                self._record(SolveStats(*(one[:first] for one in stats)), False)
        self._solve_each(first, most - total)

    def _unit(self) -> Tensor | None:
        """What the chunk's tolerance is in units of, for each sample (m,); None is 1. The chunk's
        first drive counts, which can only be too strict for the steps after it."""
        if not self.relative:
            return None
        largest = torch.maximum(self._largest, self._buffers.largest_drive(0))
        return largest.clamp_(min=torch.finfo(largest.dtype).tiny)

    def _measure(
        self, unit: Tensor | None, iterations: int
    ) -> tuple[float, Tensor | None, SolveStats]:
        """Residuals of the chunk after so many iterations.

        Returns:
            The worst over its bound, of those that are finite; in which steps (steps,) there is one
            above it, None for nowhere; the stats (steps, m), in units of `unit`.
        """
        tol, change = self.solver.tol, self._buffers.last_change()
        residual, rounding = change.amax(1), self._buffers.rounding()
        if unit is not None:
            residual, rounding = residual / unit, rounding / unit
        # As everywhere, a tolerance that is finer than the number format resolves at the size of a
        # state gives way to its rounding error.
        stats = SolveStats(
            residual, rounding.clamp_(min=tol), torch.full_like(residual, iterations)
        )
        worst = float(residual.amax()) / tol if residual.numel() else 0.0
        if worst <= 1:
            return worst, None, stats
        ratio = (residual / stats.bound).nan_to_num_(0.0, 0.0, 0.0)
        return float(ratio.amax()), (ratio > 1).any(1), stats

    def _solve_each(self, first: int, max_iter: int) -> None:
        """Hand each step of the chunk from the one numbered `first` on to the solver."""
        solver = self.solver
        if isinstance(solver, Picard):
            solver = replace(solver, max_iter=max(1, max_iter))
        for i in range(first, self._buffers.size):
            solved = self._buffers.solve(i, solver, self._largest if self.relative else None)
            if self.relative:
                self._largest = torch.maximum(self._largest, self._buffers.largest_drive(i))
            of_step = SolveStats(*(one.to(solved.residual.dtype)[None] for one in solved.stats))
            self._record(of_step, solved.all_converged)

    def _iterations_left(self, worst: float) -> int:
        """Iterations that take the worst residual from `worst` tolerances to one."""
        if math.isnan(self._rate):  # nothing to compare with yet
            return _FIRST_COUNT
        return max(1, math.ceil(math.log(worst) / self._rate + _MARGIN))

    def _spare(self, worst: float) -> int:
        """Iterations that were not needed, the worst residual being `worst` tolerances."""
        if not (worst <= 1 and self._rate > 0):
            return 0
        return max(0, math.floor(-math.log(max(worst, _TINY)) / self._rate - _MARGIN))

    def _record(self, new: SolveStats, all_converged: bool) -> None:
        """Count in the stats of some steps (steps, m), of which the steps may tell that they have
        converged where that is not known."""
        self._all_converged &= all_converged or bool(new.converged.all())
        pairs = zip(self._stats, new, strict=True)
        self._stats = SolveStats(*(torch.cat((old[None], one)) for old, one in pairs)).worst_step()


class _Buffers:
    """The memory of a chunk of steps, taken once for all of them."""

    def __init__(self, sequence: Sequence, capacity: int) -> None:
        self.sequence = sequence
        self.affine, self.finish = _affine(sequence), _finisher(sequence)
        k, self.n = len(sequence.into_carry), len(sequence.into_drive)
        _, p, m = sequence.inputs.shape
        n, rows = self.n, self.n + k + p
        # Rows of a slot: state, carry, input, drive. The first slot is the step before the chunk.
        slots = sequence.inputs.new_empty(capacity + 1, rows + n, m)
        slots[0] = 0.0
        self.heads, self.state, self.drive = slots[1:, :rows], slots[1:, :n], slots[1:, rows:]
        self.input = slots[1:, n + k : rows]
        self.before = slots.new_empty(capacity, n, m)  # the iterates one before the states
        self.spare = slots.new_empty(2, n, m).unbind(0)
        self.all_heads = slots[:, :rows].unbind(0)
        self.all_states = slots[:, :n].unbind(0)
        self.carries = slots[1:, n : n + k].unbind(0)
        self.carries_and_inputs = slots[1:, n:rows].unbind(0)
        self.drives, self.befores = self.drive.unbind(0), self.before.unbind(0)
        self.start = self.size = 0

    def begin(self, start: int, size: int) -> None:
        """Turn to the steps from `start` on."""
        self.all_heads[0].copy_(self.last_head())
        self.start, self.size = start, size
        self.input[:size] = self.sequence.inputs[start : start + size]

    def last_head(self) -> Tensor:
        """State, carry and input of the last step done, zeros before the first."""
        return self.all_heads[self.size]

    def iterate(self, first: int, count: int, again: bool) -> None:
        """Apply the map `count` times to each step from the one numbered `first` on.

        A step starts from the state of the step before or, `again`, from its own.
        """
        affine, finish = self.affine, self.finish
        spare = [self.spare[i & 1] for i in range(count - 2)]
        for i in range(first, self.size):
            drive, number = self._drive(i), self.start + i
            state, before = self.all_states[i + 1], self.befores[i]
            x = state if again else self.all_states[i]
            if count == 1:
                x = before.copy_(x)  # x may be the state itself, which is about to be overwritten
            for out in (*spare, before, state) if count > 1 else (state,):
                x = finish(affine(drive, x, out), number)
                if x is not out:  # not every activation works in place
                    x = out.copy_(x)

    def solve(self, i: int, solver: Solver, largest: Tensor | None) -> Solution:
        """Hand one step to the solver, from the state of the step before.

        Where `largest` (m,) is given, the step is linear, and solved in units of the larger of that
        and its drive.
        """
        affine, finish, drive = self.affine, self.finish, self._drive(i)
        number, start, unit = self.start + i, self.all_states[i], None
        if largest is not None:
            unit = power_of_two(torch.maximum(largest, self.largest_drive(i)))
            drive, start = drive / unit, start / unit

        # A solver has samples as rows: it works on transposed views of the very same layout.
        def step(rows: Tensor, out: Tensor) -> Tensor:
            return finish(affine(drive, rows.T, out.T), number).T

        solution = solver.solve(step, start.T, None if unit is None else ONE)
        state = solution.value.T if unit is None else solution.value.T * unit
        self.all_states[i + 1].copy_(state)
        return solution

    def _drive(self, i: int) -> Tensor:
        """The drive of the step numbered i, from the step before it."""
        sequence, carry, number = self.sequence, self.carries[i], self.start + i
        if number == 0:
            carry.copy_(sequence.first_carry)
        elif sequence.added is None:
            torch.mm(sequence.into_carry, self.all_heads[i], out=carry)
        else:
            torch.addmm(sequence.added[number], sequence.into_carry, self.all_heads[i], out=carry)
        return torch.mm(sequence.into_drive, self.carries_and_inputs[i], out=self.drives[i])

    def largest_drive(self, i: int) -> Tensor:
        """max|d| of the step numbered i as it is now, for each sample (m,)."""
        drive = self.drives[i]
        return drive.abs().amax(0) if len(drive) else drive.new_zeros(drive.shape[1])

    def last_change(self) -> Tensor:
        """What the last iteration of the chunk changed (steps, n, m), in magnitude."""
        return torch.sub(self.state[: self.size], self.before[: self.size]).abs_()

    def rounding(self) -> Tensor:
        """How finely the number format resolves each state (steps, m)."""
        state = self.state[: self.size]
        return state.abs().amax(1).mul_(ROUNDING_UNITS * torch.finfo(state.dtype).eps)
