"""Equilibria in a row: each step of a chain is one, and what drives it comes from the step before.

A chain has at step j a state s_j (n, m), a carry c_j (k, m) and a drive d_j (n, m), and is given
inputs w_j (p, m) and a_j (k, m):

    c_j = K (s_{j-1}, c_{j-1}, w_{j-1}) + a_j       and c_0, which is given
    d_j = E (c_j, w_j)
    s_j = finish(M s_j + d_j, j)                    the equilibrium

An implicit RNN is one forwards in time (the carry is its hidden state); its adjoint is another,
backwards (the carry is the hidden state's gradient). Features are the rows here and samples the
columns, so that (state, carry, input) is one contiguous block of rows.

All steps of a chunk are iterated equally often, each from the state of the step before, and only
then are their residuals measured, together: one host synchronisation a chunk. Steps that are short
of their tolerance are taken up again from where they are. How many iterations a chunk starts with
is learnt from the chunk before. Where that is many, every step is handed to the solver, which knows
how to accelerate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import ROUNDING_UNITS, Solution, SolveStats
from idl_core.equilibrium.solvers import Picard, Solver

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


@dataclass(frozen=True)
class Chain:
    """What a chain is made of.

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

    def affine(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """(drive, state, out) -> M state + drive, written into out."""
        left, right = self.left, self.right
        if right is None:
            return lambda drive, x, out: torch.addmm(drive, left, x, out=out)
        small, transposed = left.new_empty(right.shape[1], self.inputs.shape[2]), right.T
        return lambda drive, x, out: torch.addmm(
            drive, left, torch.mm(transposed, x, out=small), out=out
        )

    def finisher(self) -> Callable[[Tensor, int], Tensor]:
        """(pre-activation, number of the step) -> state; may overwrite its argument."""
        if isinstance(self.finish, Tensor):
            slopes = self.finish.unbind(0)
            return lambda pre, j: pre.mul_(slopes[j])
        phi_ = self.finish.phi_
        return lambda pre, j: phi_(pre)


class Sweep:
    """Solves a chain, chunk by chunk.

    Args:
        chain: what to solve.
        solver: its tolerance holds for every step; its max_iter is a step's.
        relative: the tolerance is in units of the largest drive so far (of those looked at: one
            a chunk).
    """

    def __init__(self, chain: Chain, solver: Solver, *, relative: bool = False) -> None:
        self.solver = solver
        steps, _, m = chain.inputs.shape
        rows = sum(chain.into_carry.shape) + len(chain.into_drive)
        longest = max(_FIRST_CHUNK, min(_LAST_CHUNK, _CHUNK_NUMBERS // max(1, rows * m)))
        self._longest = longest
        self._steps, self._buffers = steps, _Buffers(chain, min(longest, max(1, steps)))
        self._one_by_one = not isinstance(solver, Picard)
        self._can_accelerate = isinstance(solver, Picard) and solver.then is not None
        self.relative, self._largest = relative, 0.0  # the largest drive that was looked at
        self._count, self._rate = _FIRST_COUNT, math.nan
        self._stats = SolveStats(*chain.inputs.new_zeros(3, m))
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
                self._largest = max(self._largest, buffers.largest_drive(size - 1))
            yield done, done + size, buffers.heads[:size]
            done, size = done + size, min(2 * size, self._longest)

    def last_carry(self) -> Tensor:
        """The carry (k, m) that the last step leaves, nothing added."""
        return self._buffers.chain.into_carry @ self._buffers.last_head()

    def solution(self) -> Solution:
        """All steps as one: the last state (m, n), and for each sample the worst of all steps."""
        state = self._buffers.last_head()[: self._buffers.n].T.clone()
        tol = self.solver.tol * (self._largest if self.relative else 1.0)
        return Solution(state, self._stats, tol, self.relative, self._all_converged)

    def _settle(self) -> None:
        """Bring all steps of a chunk to their tolerance, or to the most iterations allowed."""
        most, total, first = self.solver.max_iter, 0, 0
        count, worst_before = min(self._count, most), math.nan
        while not self._one_by_one:
            self._buffers.iterate(first, count, again=total > 0)
            total += count
            bound = self._bound()
            worst, change = self._buffers.measure(bound)
            over = None
            if not worst <= 1:
                worst, over = self._verdict(change, bound)
            if worst < worst_before:
                self._rate = math.log(worst_before / max(worst, _TINY)) / count
            if over is None or worst <= 1 or not math.isfinite(worst) or total >= most:
                self._count = max(1, total - self._spare(worst))
                self._record(change.amax(1), self._bounds(bound), worst <= 1, total)
                return
            more = _SLOW if worst >= worst_before else self._iterations_left(worst)
            first = int(over.nonzero()[0])
            count, worst_before = min(more, most - total), worst
            self._one_by_one = self._can_accelerate and total + more > _SLOW
            if self._one_by_one and first:
                self._record(change[:first].amax(1), self._bounds(bound)[:first], True, total)
        self._solve_each(first, most - total)

    def _bound(self) -> float:
        """What the chunk's residuals may be. Where that is relative, its first drive counts, which
        can only be too strict for the steps after it."""
        if not self.relative:
            return self.solver.tol
        return self.solver.tol * max(self._largest, self._buffers.largest_drive(0))

    def _solve_each(self, first: int, max_iter: int) -> None:
        """Hand each step of the chunk from the one numbered `first` on to the solver."""
        solver = self.solver
        if isinstance(solver, Picard):
            solver = replace(solver, max_iter=max(1, max_iter))
        for i in range(first, self._buffers.size):
            solution = self._buffers.solve(i, solver, self._largest if self.relative else None)
            if self.relative:
                self._largest = max(self._largest, self._buffers.largest_drive(i))
            count = int(solution.iterations.max()) if solution.iterations.numel() else 0
            of_step = solution.stats.residual[None], solution.stats.bound[None]
            self._record(*of_step, solution.all_converged, count)

    def _verdict(self, change: Tensor, bound: float) -> tuple[float, Tensor]:
        """The worst residual over its bound, and in which steps (steps,) there is one above it."""
        residual = change.amax(1)
        worst = torch.where(residual == 0, 0.0, residual / self._bounds(bound))
        return float(worst.amax()), (~(worst <= 1)).any(1)

    def _bounds(self, bound: float) -> Tensor:
        """On the residuals of each step (steps, m): as everywhere, one that is finer than the
        number format resolves at the size of a state gives way to its rounding error."""
        return self._buffers.rounding().clamp_(min=bound)

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

    def _record(self, residual: Tensor, bounds: Tensor, converged: bool, iterations: int) -> None:
        """Count in the residuals of some steps and their bounds (steps, m), and how many iterations
        there were."""
        new = (residual, bounds, torch.full_like(residual, iterations))
        pairs = zip(self._stats, new, strict=True)
        self._stats = SolveStats(*(torch.cat((old[None], one)) for old, one in pairs)).worst_step()
        self._all_converged = self._all_converged and converged


class _Buffers:
    """The memory of a chunk of steps, taken once for all of them."""

    def __init__(self, chain: Chain, capacity: int) -> None:
        self.chain, self.affine, self.finish = chain, chain.affine(), chain.finisher()
        k, self.n = len(chain.into_carry), len(chain.into_drive)
        _, p, m = chain.inputs.shape
        n, rows = self.n, self.n + k + p
        # Rows of a slot: state, carry, input, drive. The first slot is the step before the chunk.
        slots = chain.inputs.new_empty(capacity + 1, rows + n, m)
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
        self.input[:size] = self.chain.inputs[start : start + size]

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

    def solve(self, i: int, solver: Solver, unit: float | None) -> Solution:
        """Hand one step to the solver, from the state of the step before.

        Where `unit` is given, the tolerance is in units of it or, if larger, of the drive.
        """
        affine, finish, drive = self.affine, self.finish, self._drive(i)
        number = self.start + i
        size = None if unit is None else drive.new_tensor(max(unit, self.largest_drive(i)))

        # A solver has samples as rows: it works on transposed views of the very same layout.
        def step(rows: Tensor, out: Tensor) -> Tensor:
            return finish(affine(drive, rows.T, out.T), number).T

        solution = solver.solve(step, self.all_states[i].T, size)
        self.all_states[i + 1].copy_(solution.value.T)
        return solution

    def _drive(self, i: int) -> Tensor:
        """The drive of the step numbered i, from the step before it."""
        chain, carry, number = self.chain, self.carries[i], self.start + i
        if number == 0:
            carry.copy_(chain.first_carry)
        elif chain.added is None:
            torch.mm(chain.into_carry, self.all_heads[i], out=carry)
        else:
            torch.addmm(chain.added[number], chain.into_carry, self.all_heads[i], out=carry)
        return torch.mm(chain.into_drive, self.carries_and_inputs[i], out=self.drives[i])

    def largest_drive(self, i: int) -> float:
        """max|d| of the step numbered i, as it is now."""
        drive = self.drives[i]
        return float(drive.abs().amax()) if drive.numel() else 0.0

    def measure(self, bound: float) -> tuple[float, Tensor]:
        """The worst residual of the chunk over the bound, and the changes (steps, n, m) of the last
        iteration, of which a residual is the largest."""
        change = torch.sub(self.state[: self.size], self.before[: self.size]).abs_()
        return _ratio(float(change.amax()) if change.numel() else 0.0, bound), change

    def rounding(self) -> Tensor:
        """How finely the number format resolves each state (steps, m)."""
        state = self.state[: self.size]
        return state.abs().amax(1).mul_(ROUNDING_UNITS * torch.finfo(state.dtype).eps)


def _ratio(value: float, bound: float) -> float:
    return 0.0 if value == 0 else value / bound if bound > 0 else math.inf
