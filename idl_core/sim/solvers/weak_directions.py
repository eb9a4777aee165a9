"""Rows whose penalty decides only in directions that the data hardly see, solved in those alone.

First-order methods crawl there, and exchanges of signs cycle; an interior-point method takes a
dozen steps, each with a matrix of a few dozen or hundred rows (`WeakSpace`). Its multipliers y then
correct the pinned part, w_s = V Λ⁻¹ Vᵀ (h - y), after which Mᵀ(z - Mw) = y exactly: a dual feasible
point, so that the gap that this leaves is of second order in λ/Λ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.solvers.best_answers import BestAnswers
from idl_core.sim.solvers.interior_point import Program
from idl_core.sim.solvers.weak_space import WeakSpace
from idl_core.wellposed import project_rows

_NUMBERS = 3.2e7  # of the rows' matrices, 256 MiB of float64
_SHARE = 0.03  # of the gap asked for that the interior-point method may leave


def rows_at_once(space: WeakSpace) -> int:
    """How many rows to solve together in a space, to bound memory."""
    D, d = space.N.shape
    return max(1, int(_NUMBERS / (d * d + 8 * D)))


def solve_weak(best: BestAnswers, rows: Tensor, space: WeakSpace, relative_gap: float) -> Tensor:
    """Improve the answers and the bounds of some rows, as far as the space reaches.

    Returns:
        (k,) interior-point steps spent on each of them.
    """
    steps = torch.zeros_like(rows)
    program = Program.of(best.problem.rows(rows), space)
    t, reached = program.least_squares()
    if not bool(reached.any()):
        return steps
    rows, program = rows[reached], program.select(reached)
    point, steps[reached] = program.solve(t[reached], _SHARE * relative_gap)
    part = program.rows
    pinned, _ = space.pinned(part.h - part.l1 * point.y, part.h)
    w = pinned + point.t @ space.N.T
    best.certify(rows, w, part.gram.apply(w))
    if part.ball:
        w[:, : part.ball] = project_rows(w[:, : part.ball], part.kappa)
    best.consider(rows, w, part.gram.apply(w))
    return steps
