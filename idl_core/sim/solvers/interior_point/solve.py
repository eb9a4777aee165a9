"""Rows solved by the interior-point method.

Where the penalty decides only in directions that the data hardly see, first-order methods crawl
and exchanges of signs cycle; the interior-point method takes a dozen or two steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.memory import MATRICES
from idl_core.sim.solvers.interior_point.low_curvature_program import LowCurvatureProgram
from idl_core.sim.solvers.interior_point.low_curvature_subspace import LowCurvatureSubspace
from idl_core.sim.solvers.interior_point.row_space_program import RowSpace, RowSpaceProgram
from idl_core.sim.solvers.problem.incumbents import Incumbents
from idl_core.wellposed import project_rows

_SHARE = 0.03  # of the gap asked for that the interior-point method may leave


def solve_within(
    best: Incumbents, rows: Tensor, space: LowCurvatureSubspace | RowSpace, relative_gap: float
) -> Tensor:
    """Improve the answers and the bounds of some rows, as far as the space reaches.

    Returns:
        (k,) interior-point steps spent on each of them.
    """
    part, steps = best.problem.rows(rows), torch.zeros_like(rows)
    program = (
        LowCurvatureProgram.of(part, space)
        if isinstance(space, LowCurvatureSubspace)
        else RowSpaceProgram.of(part, space)
    )
    start, reached = program.start()
    if not bool(reached.any()):
        return steps
    rows, program = rows[reached], program.select(reached)
    point, steps[reached] = program.solve(start.select(reached), _SHARE * relative_gap)
    part, w = program.rows, program.answer(point)
    best.certify(rows, w, part.gram.apply(w))
    # p - n keeps to the ball where w, whose pinned part has moved last, may not; where the ball
    # does not bind, w fits the data better.
    for candidate in (point.p - point.n, w):
        v = candidate.clone()
        if part.ball:
            v[:, : part.ball] = project_rows(v[:, : part.ball], part.kappa)
        best.consider(rows, v, part.gram.apply(v))
    return steps


def rows_at_once(space: LowCurvatureSubspace | RowSpace) -> int:
    """How many rows to solve together in a space, to bound memory."""
    return max(1, MATRICES // space.row_numbers)
