"""Which form of Newton's equations a problem's rows are solved with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch

from idl_core.sim.solvers.interior_point.newton_systems import (
    DenseSystems,
    LowCurvatureSystems,
    NewtonSystems,
    RowSpaceSystems,
)
from idl_core.sim.solvers.problem.row_problem import RowProblem

_LOW = 1e5  # eigenvalues up to this multiple of λ are of low curvature
# Multiplications and additions a second, relative to one another: of a product of matrices, and of
# a Cholesky factorisation.
_PRODUCT, _FACTOR = 3.0, 1.0


class SystemsChoice:
    """The forms for one problem, made when they are first needed.

    Args:
        problem: its data, ball and penalties; which rows does not matter.
    """

    def __init__(self, problem: RowProblem) -> None:
        self.problem, self.data = problem, problem.data
        self.made: dict[int, LowCurvatureSystems | None] = {}

    def of(self, ball_binds: bool) -> Iterator[NewtonSystems]:
        """The forms to try, one after the other, for rows whose ball binds or not."""
        for free in (self.problem.ball,) if ball_binds else (0, self.problem.ball):
            systems = self._low_curvature(free)
            if systems is not None:
                yield systems
        yield self.general

    @cached_property
    def general(self) -> NewtonSystems:
        """What solves any row: on the smaller side, unless D is hardly larger than r."""
        width, rank = self.data.size, self.data.rank
        thin = _cost(width, rank)
        free_columns = self.problem.l1 == 0 and self.problem.ball < width and not self.problem.l2
        if thin < width**3 / 3 / _FACTOR and not free_columns:
            return RowSpaceSystems(self.data)
        return DenseSystems(self.data)

    def _low_curvature(self, free: int) -> LowCurvatureSystems | None:
        """The form with `free` columns; None where it would not pay."""
        if free not in self.made:
            self.made[free] = self._made(free)
        return self.made[free]

    def _made(self, free: int) -> LowCurvatureSystems | None:
        data, width = self.data, self.data.size
        limit = _LOW * self.problem.l1
        dense = min(width**3 / 3 / _FACTOR, _cost(width, data.rank))
        least = free + max(0, width - data.rank)
        if not self.problem.l1 or _cost(width - free, least) > dense / 2:
            return None
        gram = data.gram[free:, free:]
        if limit > float(gram.diagonal().median()):
            return None
        eigen = torch.linalg.eigh(gram)
        low = int((eigen[0] + self.problem.l2 <= limit).sum())
        if not free + low > 0 or _cost(width - free, free + low) > dense / 2:
            return None
        return LowCurvatureSystems(data, free, eigen, low)


def _cost(width: int, size: int) -> float:
    """Of Nᵀ diag(q) N with N (width, size), and of factoring it."""
    return 1.25 * width * size**2 / _PRODUCT + size**3 / 3 / _FACTOR
