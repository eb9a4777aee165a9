"""Presolve: the columns of M that no answer needs.

A column of zeros (a pixel that is constantly black, a unit that never fires) gets weight zero: no
penalty prefers another. Of parallel columns within the block a, or within b, only the longest is
needed where the penalty is λ‖w‖₁: the same Mw costs least there. A column of a that is parallel to
one of b that is as long is not needed either, for b is not bound by the ball. With κ = 0 none of a
is.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from idl_core.sim.solvers.problem.compressed_data import CompressedData
from idl_core.sim.solvers.problem.penalty import Penalty

# Columns whose normalised difference is at most this are parallel to the precision of the data.
_PARALLEL = 1e-14
_DIGITS = 46  # of a length, of that precision too
_LIKELY = 1e-10  # of 1 - |cos| of the angle, which the Gram matrix knows to some 1e-15


def presolved(
    data: CompressedData, states: int, kappa: float | None, penalty: Penalty
) -> tuple[CompressedData, Tensor]:
    """The data with the columns that an answer may use, and their indices, ascending.

    A column that was left out as parallel is correlated with ν no more than the one that stays, to
    within the share of its length by which they differ: the data's `unit` counts that too.

    Args:
        data: all D columns.
        states: leading columns; the ball binds them, if there is one.
        kappa: radius of the ball, or None for no ball.
        penalty: copies go where it is λ‖w‖₁: with an ℓ2 part they share a weight, and without
            any, b is a projection.
    """
    alive = data.lengths > 0
    if kappa == 0:
        alive[:states] = False
    columns = alive.nonzero()[:, 0]
    if penalty.l2 or not penalty.l1 or not len(columns):
        return data.select(columns), columns
    kept = _longest(data, columns, 0 if kappa is None else states)
    unit = data.unit + _PARALLEL if len(kept) < len(columns) else data.unit
    return replace(data.select(kept), unit=unit), kept


def _longest(data: CompressedData, columns: Tensor, ball: int) -> Tensor:
    """Of some columns, without those that a parallel one makes needless."""
    units = data.factor[:, columns] / data.lengths[columns]
    first, second = _parallel_pairs(units)
    if not len(first):
        return columns
    # Rounded a little, so that copies are as long as each other.
    mantissa, exponent = torch.frexp(data.lengths[columns])
    lengths = torch.ldexp((mantissa * 2.0**_DIGITS).round(), exponent)
    in_ball = columns < ball
    keep = torch.ones(len(columns), dtype=torch.bool, device=columns.device)
    # Of equally long columns that of b, then the first one stays; a transitive order.
    for drop, stay in ((first, second), (second, first)):
        may = in_ball[drop] | ~in_ball[stay]  # what b offers a may leave, not the other way
        longer = lengths[stay] > lengths[drop]
        tie = lengths[stay] == lengths[drop]
        before = (in_ball[drop] & ~in_ball[stay]) | (
            (in_ball[drop] == in_ball[stay]) & (stay < drop)
        )
        keep[drop[may & (longer | (tie & before))]] = False
    return columns[keep]


def _parallel_pairs(units: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs i < j of columns of length 1 that differ by no more than their rounding, up to sign."""
    cosines = units.T @ units
    likely = (cosines.abs() > 1 - _LIKELY).triu(1).nonzero()
    first, second = likely[:, 0], likely[:, 1]
    apart = torch.ones(len(likely), dtype=units.dtype, device=units.device)
    for part in torch.arange(len(likely), device=units.device).split(4096):
        i, j = first[part], second[part]
        away = units[:, i] - units[:, j] * torch.sign(cosines[i, j])
        apart[part] = torch.linalg.vector_norm(away, dim=0)
    same = apart <= _PARALLEL
    return first[same], second[same]
