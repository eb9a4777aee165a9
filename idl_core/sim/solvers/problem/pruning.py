"""Setting a row's smallest weights to zero, as far as its duality gap allows.

An interior-point method has no exact zeros, and where λ is small beside the data's curvature many
weights of an answer within the gap are of a size that the gap cannot tell from zero.
"""

from __future__ import annotations

import torch

from idl_core.sim.solvers.problem.incumbents import Incumbents

_SHARE = 0.1  # of the gap that a row may have, that its zeros may cost


def prune(best: Incumbents, relative_gap: float) -> None:
    """Set to zero the most of each row's smallest weights that leave it within `relative_gap`."""
    scale = best.problem.scale(best.objective)
    room = torch.minimum(_SHARE * relative_gap * scale, relative_gap * scale - best.gap())
    (rows,) = (room > 0).nonzero(as_tuple=True)
    part, v = best.problem.rows(rows), best.v[rows]
    allowed = best.objective[rows] + room[rows]
    # What a weight does to Mw counts, not its size: columns may be of any length.
    sizes = v.abs() * part.data.lengths
    sorted_sizes = sizes.sort(1).values
    # By bisection: how many of the smallest go. More of them cost more, but for rounding.
    low = torch.zeros_like(rows)
    high = torch.full_like(rows, v.shape[1])
    for _ in range(max(1, v.shape[1].bit_length())):
        count = (low + high + 1) // 2
        limit = sorted_sizes.gather(1, (count - 1).clamp(min=0)[:, None])
        answer = torch.where((sizes <= limit) & (count > 0)[:, None], 0.0, v)
        objective = part.objective(answer, part.residual(answer))
        fits = objective <= allowed
        low, high = torch.where(fits, count, low), torch.where(fits, high, count - 1)
        taken = rows[fits]
        best.v[taken], best.objective[taken] = answer[fits], objective[fits]
