"""Rows solved by the interior-point method, each with a proof of how close it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from idl_core.sim.memory import MATRICES
from idl_core.sim.solvers.interior_point.choice import SystemsChoice
from idl_core.sim.solvers.interior_point.mehrotra import Masks, Point, advance
from idl_core.sim.solvers.interior_point.newton_systems import NewtonSystems
from idl_core.sim.solvers.interior_point.start import starting_point
from idl_core.sim.solvers.problem.incumbents import Incumbents

OnCheck = Callable[[int, Tensor, Tensor], None]  # iteration, relative gap (k,), done (k,)

_AIM = 0.1  # of the gap asked for, what a row may stop at, unless rounding keeps it from there
_PATIENCE = 2  # steps that bring nothing, after which a row within the gap asked for stops
_HOPE = 12  # and one that is not
_LOST = 0.1  # error of the linear equations from which on a row goes to the next form of them


@dataclass(frozen=True)
class Limits:
    """When a row is done.

    Attributes:
        gap_tol: relative gap.
        max_iter: bound on interior-point steps.
    """

    gap_tol: float
    max_iter: int


@dataclass
class Watch:
    """What is told of the rows of one block while they are solved.

    Attributes:
        on_check: called at each check; what it raises ends the solve.
        history: (iteration, worst relative gap, median relative gap) at each check.
    """

    on_check: OnCheck | None = None
    history: list[tuple[int, float, float]] = field(default_factory=list)

    def check(self, best: Incumbents, iteration: int, limits: Limits) -> None:
        """Tell how far all rows are."""
        relative = best.relative_gap()
        if not len(relative):
            return
        self.history.append((iteration, float(relative.max()), float(relative.median())))
        if self.on_check is not None:
            self.on_check(iteration, relative, relative <= limits.gap_tol)


def improve(
    best: Incumbents, rows: Tensor, choice: SystemsChoice, limits: Limits, watch: Watch
) -> Tensor:
    """Solve some rows, as far as rounding lets, for their incumbents and bounds.

    Returns:
        (k,) interior-point steps spent on each of them.
    """
    steps = torch.zeros(best.problem.count, dtype=torch.int64, device=rows.device)
    if not len(rows):
        return steps[rows]
    part = best.problem.rows(rows)
    masks = Masks.of(part)
    point, binds = starting_point(part, masks)
    for free in (False, True):
        chosen = binds == free
        todo, at = rows[chosen], point.select(chosen)
        for systems in choice.of(free) if len(todo) else ():
            lost, where = [todo[:0]], [at.select(todo[:0])]
            for piece in torch.arange(len(todo), device=rows.device).split(_at_once(systems)):
                run = _Run(best, todo[piece], at.select(piece), systems, limits, masks)
                left, point_left = run.to_the_end(steps, watch)
                lost.append(left)
                where.append(point_left)
            todo = torch.cat(lost)
            at = Point(
                *(
                    torch.cat(parts)
                    for parts in zip(*(vars(w).values() for w in where), strict=True)
                )
            )
            if not len(todo):
                break
    return steps[rows]


def _at_once(systems: NewtonSystems) -> int:
    """How many rows to solve together, to bound memory."""
    return max(1, MATRICES // systems.row_numbers)


class _Run:
    """Some rows on their way with one form of the linear equations."""

    def __init__(
        self,
        best: Incumbents,
        rows: Tensor,
        point: Point,
        systems: NewtonSystems,
        limits: Limits,
        masks: Masks,
    ) -> None:
        self.best, self.rows, self.point = best, rows, point
        self.systems, self.limits, self.masks = systems, limits, masks
        self.least = torch.full_like(best.objective[rows], torch.inf)
        self.idle = torch.zeros_like(rows)

    def to_the_end(self, steps: Tensor, watch: Watch) -> tuple[Tensor, Point]:
        """Iterate until every row is done; returns those that need other systems, with points."""
        lost, where = [self.rows[:0]], [self.point.select(self.rows[:0])]
        for _ in range(self.limits.max_iter):
            at = self.best.measure(self.rows, self.point.w)
            going = self._going()
            watch.check(self.best, int(steps.max()), self.limits)
            self._keep(going)
            if not len(self.rows):
                break
            before = self.point
            problem = self.best.problem.rows(self.rows)
            self.point, error = advance(problem, self.masks, self.systems, before, at.c[going])
            steps[self.rows] += 1
            good = (error <= _LOST) & torch.isfinite(self.point.w).all(1)
            if not bool(good.all()):
                lost.append(self.rows[~good])
                where.append(before.select(~good))
                self._keep(good)
        return torch.cat(lost), Point.joined(where)

    def _going(self) -> Tensor:
        """Which rows go on: not those that are done, or that steps no longer improve."""
        relative = self.best.relative_gap()[self.rows]
        better = relative < 0.9 * self.least
        self.idle = torch.where(better, 0, self.idle + 1)
        self.least = torch.minimum(self.least, relative)
        tol = self.limits.gap_tol
        stuck = torch.where(relative <= tol, self.idle >= _PATIENCE, self.idle >= _HOPE)
        return (relative > _AIM * tol) & ~stuck

    def _keep(self, keep: Tensor) -> None:
        if not bool(keep.all()):
            self.rows, self.point = self.rows[keep], self.point.select(keep)
            self.least, self.idle = self.least[keep], self.idle[keep]
