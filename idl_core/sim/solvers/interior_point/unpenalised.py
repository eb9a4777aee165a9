"""Rows whose b neither a penalty nor the ball bounds: least squares for b, whatever a is.

With P the projection onto the range of M_b, b takes up PM_a a and Pz, and a solves the problem of
the data (1 - P)M_a and targets (1 - P)z, whose columns the ball binds all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.choice import SystemsChoice
from idl_core.sim.solvers.interior_point.solve import Limits, Watch, improve
from idl_core.sim.solvers.problem.column_span import ColumnSpan
from idl_core.sim.solvers.problem.compressed_data import Targets
from idl_core.sim.solvers.problem.incumbents import Incumbents

_REFITS = 3  # each takes up what the one before has lost to rounding


def solve_unpenalised(best: Incumbents, rows: Tensor, limits: Limits, watch: Watch) -> Tensor:
    """Solve some rows for their incumbents and bounds; returns steps (k,) spent on each.

    The problem of `best` is given the span of b's columns, which its bounds need.
    """
    problem, ball = best.problem, best.problem.ball
    columns = torch.arange(problem.data.size, device=rows.device)[ball:]
    span = ColumnSpan.of_data(problem.data.factor, columns)
    best.problem = replace(problem, span=span)
    left, seen = problem.data.factor[:, :ball], problem.data.factor[:, ball:] @ span.weights
    basis = torch.linalg.qr(seen).Q  # orthonormal to rounding, which `seen` is not
    targets = problem.targets.rows(rows)
    a = left.new_zeros(len(rows), ball)
    steps = torch.zeros_like(rows)
    if ball:
        data = replace(
            problem.data, factor=_without(left, basis), lengths=problem.data.lengths[:ball]
        )
        rest = Targets(_without(targets.z.T, basis).T, targets.rest)
        inner = Incumbents(replace(problem, data=data, targets=rest))
        every = torch.arange(len(rows), device=rows.device)
        steps = improve(inner, every, SystemsChoice(inner.problem), limits, watch)
        a = inner.v
    w = torch.cat([a, a.new_zeros(len(a), len(columns))], 1)
    for _ in range(_REFITS):
        nu = targets.z - w @ problem.data.factor.T
        w[:, ball:] += (nu @ seen) @ span.weights.T
    best.measure(rows, w)
    return steps


def _without(columns: Tensor, basis: Tensor) -> Tensor:
    """Columns without their part in the range of an orthonormal basis, taken out twice."""
    for _ in range(2):
        columns = columns - basis @ (basis.T @ columns)
    return columns
