"""The alternating direction method for all rows at once: the loop behind `ADMMSolver`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from idl_core.sim.memory import POLISHED
from idl_core.sim.solvers.alternating_direction.active_set import polish
from idl_core.sim.solvers.alternating_direction.factors import Factors
from idl_core.sim.solvers.interior_point.solve import rows_at_once, solve_within
from idl_core.sim.solvers.problem.incumbents import Incumbents
from idl_core.sim.solvers.problem.pruning import prune
from idl_core.sim.solvers.problem.row_problem import RowProblem

OnCheck = Callable[[int, Tensor, Tensor], None]  # iteration, relative gap (k,), done (k,)


@dataclass(frozen=True)
class ADMMSettings:
    """When the loop stops and how it goes.

    Attributes:
        gap_tol: relative gap at which a row is done.
        max_iter: bound on iterations.
        relaxation: over-relaxation factor, in (0, 2).
        polish_rounds: most exchanges in one polish; 0 for none.
    """

    gap_tol: float
    max_iter: int
    relaxation: float
    polish_rounds: int


@dataclass
class RowAnswers:
    """What the loop returns.

    Attributes:
        v: (k, D) feasible answers.
        objective, gap: (k,).
        iterations: (k,) steps spent on each row, of the interior-point method and of ADMM.
        history: (iteration, worst relative gap, median relative gap) at each check.
    """

    v: Tensor
    objective: Tensor
    gap: Tensor
    iterations: Tensor
    history: list[tuple[int, float, float]] = field(default_factory=list)


def solve_rows(
    problem: RowProblem,
    settings: ADMMSettings,
    on_check: OnCheck | None = None,
    factors: Factors | None = None,
) -> RowAnswers:
    """Solve k rows, dropping each once its relative duality gap is within `gap_tol`.

    Args:
        on_check: told of every check; what it raises ends the solve.
        factors: of the same problem's matrix, where other rows have been solved with it before.
    """
    factors = factors or Factors(problem.gram, problem.ball, problem.l2)
    loop = _Loop(problem, settings, factors, on_check)
    loop.check()
    if problem.is_unbound:
        loop.find_column_span()
    loop.solve_low_curvature_subspace()
    loop.find_column_span()
    while len(loop.rows) and loop.count < settings.max_iter:
        loop.stage()
        loop.check()
        if loop.count == _FIRST_POLISH:
            loop.solve_row_space()
    best = loop.best
    prune(best, settings.gap_tol)
    return RowAnswers(best.v, best.objective, best.gap(), loop.iterations, loop.history)


class _Loop:
    """State of the iteration: the rows under way, their variables and their penalties."""

    def __init__(
        self,
        problem: RowProblem,
        settings: ADMMSettings,
        factors: Factors,
        on_check: OnCheck | None,
    ) -> None:
        self.problem, self.settings, self.factors = problem, settings, factors
        self.on_check = on_check
        self.best = Incumbents(problem)
        count, device = len(problem.h), problem.h.device
        self.rows = torch.arange(count, device=device)
        self.iterations = torch.zeros(count, dtype=torch.int64, device=device)
        self.v, self.u, self.w = (torch.zeros_like(problem.h) for _ in range(3))
        self.count, self.polished = 0, 0
        self.penalty = self._first_penalties()
        self.history: list[tuple[int, float, float]] = []

    def check(self) -> None:
        """Tell of the gaps, and drop the rows that are done."""
        relative = self.best.relative_gap()
        done = relative <= self.settings.gap_tol
        if len(relative):
            iteration = int(self.iterations.max())
            self.history.append((iteration, float(relative.max()), float(relative.median())))
            if self.on_check is not None:
                self.on_check(iteration, relative, done)
        self._drop(done)

    def find_column_span(self) -> None:
        """Find what b's columns span, and judge the answers so far with it. Least squares for b and
        proofs beside a penalty that is hardly above rounding need it; it takes some time."""
        problem = self.problem
        if not len(self.rows) or problem.ball == problem.gram.size or problem.span is not None:
            return
        span = problem.gram.span(problem.ball)
        self.best.problem = self.problem = replace(problem, span=span)
        answers = self.best.v[self.rows]
        self._measure(answers, answers)
        self.check()

    def solve_low_curvature_subspace(self) -> None:
        """Solve what the data leave free in those directions alone, where they are few: first as
        if no ball bound, then with all of a free. Most problems with a small λ end here."""
        for free in dict.fromkeys((0, self.problem.ball)):
            self._solve_within(free)
        if self.problem.gram.rank <= _FEW_SAMPLES * self.problem.gram.size:
            self.solve_row_space()

    def solve_row_space(self) -> None:
        """Solve in the directions that the data see: where those are few, or ADMM and polish leave
        rows open."""
        self._solve_within(None)

    def _solve_within(self, free: int | None) -> None:
        try:
            space = self.factors.space(self.problem, free) if len(self.rows) else None
            if space is None:
                return
            for rows in self.rows.split(rows_at_once(space)):
                self.iterations[rows] += solve_within(self.best, rows, space, self.settings.gap_tol)
                self.check()
        except torch.linalg.LinAlgError:
            return  # eigenvectors that do not converge: ADMM takes the rows

    # --- penalties: powers of ten, one for the block a and one for the block b of each row -------

    def _first_penalties(self) -> Tensor:
        """(k, 2) exponents: a fraction of G's mean diagonal on a; on b, l1 over b's likely size."""
        mean = self.factors.mean
        likely = self.problem.h.abs().amax(1) / mean
        b = (self.problem.l1 / likely.clamp(min=1e-12)).clamp(1e-9 * mean, mean)
        a = torch.full_like(b, 0.03 * mean)
        return torch.stack([_exponent(a), _exponent(b)], 1)

    def _adapt(self) -> None:
        """Move each row's penalties towards ‖dual‖/‖primal‖ of its blocks; scale u to match.

        At the solution ρ then carries the units of the multiplier over those of the answer. A
        block whose multiplier is only that of l1 starts with more, and where a row stays open for
        long other multiples are tried in turn.
        """
        ball, mean = self.problem.ball, self.factors.mean
        for block, columns in ((0, slice(0, ball)), (1, slice(ball, None))):
            v, u = self.v[:, columns], self.u[:, columns]
            if not v.shape[1]:
                continue
            old = self.penalty[:, block]
            primal = torch.linalg.vector_norm(v, dim=1)
            dual = torch.linalg.vector_norm(u, dim=1) * 10.0**old
            binds = (block == 0) & (v.abs().sum(1) >= self.problem.kappa * (1 - 1e-9))
            dual = torch.where(binds, dual, _eagerness(self.count) * dual)
            known = (primal > 0) & (dual > 0)
            wanted = torch.where(known, dual / primal.clamp(min=_TINY), 10.0**old)
            new = _exponent(wanted.clamp(1e-10 * mean, 10 * mean))
            self.u[:, columns] *= (10.0 ** (old - new))[:, None]
            self.penalty[:, block] = new

    # --- iterations -----------------------------------------------------------------------------

    def stage(self) -> None:
        """Iterate until the next check; then measure, polish, and adapt the penalties."""
        until = _next_check(self.count)
        steps = min(until, self.settings.max_iter) - self.count
        for key in self.penalty.unique(dim=0):
            members = (self.penalty == key).all(1).nonzero()[:, 0]
            self._iterate(members, (int(key[0]), int(key[1])), steps)
        self.count += steps
        self.iterations[self.rows] += steps
        self._measure(self.v, self.w)
        if self.settings.polish_rounds and self.count >= _FIRST_POLISH:
            self._polish()
        self._adapt()

    def _measure(self, v: Tensor, w: Tensor) -> None:
        """Answers from feasible v, and bounds from any w, of the rows under way."""
        part, gram = self.problem.rows(self.rows), self.problem.gram
        v, w = part.refitted(v), part.refitted(w)
        self.best.consider(self.rows, v, gram.apply(v))
        self.best.certify(self.rows, w, gram.apply(w))

    def _iterate(self, members: Tensor, key: tuple[int, int], steps: int) -> None:
        inverse, rho = self.factors.inverse(key), self.factors.penalties(key)
        h = self.problem.h[self.rows[members]]
        v, u, w = self.v[members], self.u[members], self.w[members]
        relax = self.settings.relaxation
        for _ in range(steps):
            w = inverse.apply(torch.addcmul(h, v - u, rho))
            point = torch.lerp(v, w, relax).add_(u)
            v = self.problem.prox(point, rho)
            u = point.sub_(v)
        self.v[members], self.u[members], self.w[members] = v, u, w

    def _polish(self) -> None:
        """Polish the rows still open, from the iterate and from the best answer by turns."""
        start = self.best.v[self.rows] if self.polished % 2 else self.v
        self.polished += 1
        is_open = self.best.relative_gap()[self.rows] > self.settings.gap_tol
        # Each row keeps a factor of up to (D/2)² numbers while it is being polished.
        size = max(8, POLISHED // (self.v.shape[1] ** 2 // 4 + 1))
        for part in is_open.nonzero()[:, 0].split(size):
            polish(
                self.best,
                self.rows[part],
                start[part],
                self.factors,
                self.settings.polish_rounds,
                self.settings.gap_tol,
            )

    def _drop(self, done: Tensor) -> None:
        """Take the rows that are done out of the work."""
        keep = ~done[self.rows]
        if not keep.all():
            self.rows, self.penalty = self.rows[keep], self.penalty[keep]
            self.v, self.u, self.w = self.v[keep], self.u[keep], self.w[keep]


_FIRST_POLISH = 100
_FEW_SAMPLES = 2 / 3  # of the columns, up to which what the data see is little
_TINY = 1e-300


def _next_check(count: int) -> int:
    """Checks at 20, 50, 100, 200, 300, ...: each costs two to three iterations."""
    for check in (20, 50, 100):
        if count < check:
            return check
    return count + 100


def _eagerness(count: int) -> float:
    """Multiple of ‖dual‖/‖primal‖ that a block's penalty takes after `count` iterations.

    Found by trial on MNIST states and on small random problems.
    """
    if count <= 200:
        return 10.0
    return 1.0 if count <= 1000 else (1.0, 0.1, 10.0)[(count // 100) % 3]


def _exponent(value: Tensor) -> Tensor:
    """Exponent of the nearest power of ten."""
    return torch.round(torch.log10(value.clamp(min=_TINY)))
