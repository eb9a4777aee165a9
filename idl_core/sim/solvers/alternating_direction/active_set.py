"""Polishing: the exact solution on the support that was found, and a few exchanges around it.

On a support S with signs s the optimality conditions are linear,

    (MᵀM + l2)_SS w_S + θ s_a = (h - l1 s)_S,    s_aᵀ a = κ where the ball binds,

and are solved through the shared (G + ε)⁻¹ by eliminating the columns *outside* S, few where the
penalty is small, or by factoring (G + ε)_SS, small where the answer is sparse. A proximal term
ε‖w - w₀‖² keeps duplicated columns apart from singularity; it vanishes as w₀ converges. Then signs
that came out wrong leave S and columns whose correlation is too large enter (a primal-dual active
set step: Hintermüller, Ito and Kunisch, SIAM J. Optim. 13, 2002). Nothing is accepted that does
not lower the objective of a feasible answer or raise the lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from idl_core.sim.solvers.alternating_direction.factors import Factors
from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.gram import Inverse
from idl_core.sim.solvers.problem.incumbents import Incumbents
from idl_core.sim.solvers.problem.row_problem import RowProblem
from idl_core.wellposed import project_rows


def polish(
    best: Incumbents,
    rows: Tensor,
    start: Tensor,
    factors: Factors,
    rounds: int,
    relative_gap: float,
) -> None:
    """Polish some rows of `best` from the answers `start` (k, D), in at most `rounds` rounds.

    Args:
        factors: its rungs are the inverses of G + ε + l2 for smaller and smaller ε.
        relative_gap: rows that reach it are left alone.
    """
    whole = best.problem
    state = _Support(
        rows,
        start,
        whole.gram.apply(start),
        start.sign(),
        _binding(start, whole),
        torch.full_like(rows, _FIRST_RUNG),
        torch.full_like(rows, start.shape[1]),
    )
    for _ in range(rounds):
        levels = state.level.clone()  # a row that goes on to another waits for the next round
        for level in levels.unique().tolist():
            members = (levels == level).nonzero()[:, 0]
            _exchange(best, state, members, factors.rung(level))
        state.level.clamp_(0, factors.rungs - 1)
        stuck = state.entrants == 0
        state = state.select((best.relative_gap()[state.rows] > relative_gap) & ~stuck)
        if not len(state.rows):
            return


@dataclass
class _Support:
    """Supports under exchange: k rows, their points, images Gv, signs, rung on the ladder,
    and the number of columns that may enter at once."""

    rows: Tensor
    point: Tensor
    image: Tensor
    sign: Tensor
    binding: Tensor
    level: Tensor
    entrants: Tensor

    def select(self, keep: Tensor) -> _Support:
        return _Support(*(getattr(self, part.name)[keep] for part in fields(self)))


def _exchange(best: Incumbents, state: _Support, members: Tensor, shared: Inverse) -> None:
    """Solve on the supports of some members of `state`, then exchange what broke its conditions."""
    now = state.select(members)
    part = best.problem.rows(now.rows)
    epsilon = shared.rho - part.l2
    w, theta = _on_support(part, now, epsilon, shared)
    Gw = part.gram.apply(w)
    limit = torch.full_like(w, part.l1)
    limit[:, : part.ball] += theta.clamp(min=0)[:, None]
    _certify(best, now.rows, w, Gw, limit + part.l2 * w.abs(), shared)
    target = w.clone()
    if part.ball:
        target[:, : part.ball] = project_rows(w[:, : part.ball], part.kappa)
    image = part.gram.apply(target) if bool((target != w).any()) else Gw
    t = _step_length(part, now, target, image)
    whole = t[:, 0] == 1
    v, Gv = torch.lerp(now.point, target, t), torch.lerp(now.image, image, t)
    best.consider(now.rows, v, Gv)
    # The next support, from the conditions of the proximal problem at the point reached.
    slope = part.h - Gv - part.l2 * v + torch.where(whole[:, None], epsilon * (now.point - v), 0.0)
    # After a whole step, what came out with the wrong sign leaves; after a shortened one the signs
    # of the point reached are the model in which the next step descends.
    # Of those, what would turn around almost at once, and so block the next step, leaves too.
    ahead = torch.where(w * now.sign > 0, now.sign, 0.0)
    blocking = (w * v < 0) & (v.abs() < _BLOCKING * (w - v).abs())
    kept = torch.where(whole[:, None], ahead, torch.where(blocking, 0.0, v.sign()))
    outside = (kept == 0) & (now.sign == 0)
    violation = torch.where(outside, slope.abs() / limit.clamp(min=_TINY), 0.0)
    entering = _most_violated(violation, now.entrants)
    changes = ((kept != now.sign) | entering).sum(1)
    state.sign[members] = torch.where(entering, slope.sign(), kept)
    if part.ball:
        inside = w[:, : part.ball].abs().sum(1) <= part.kappa
        state.binding[members] = torch.where(now.binding, theta >= 0, ~inside)
    state.point[members], state.image[members] = v, Gv
    fewer = (now.entrants // 16).clamp(min=1)
    more = (4 * now.entrants).clamp(max=w.shape[1])
    entrants = torch.where(whole, more, torch.where(t[:, 0] < 0.2, fewer, now.entrants))
    # A step of length 0 twice running: nothing more to be had here, back to the iteration.
    stuck = (t[:, 0] == 0) & (now.entrants < w.shape[1] // 8)
    state.entrants[members] = torch.where(stuck, 0, entrants)
    state.level[members] += (changes <= _SETTLED).long()


def _certify(
    best: Incumbents, rows: Tensor, w: Tensor, Gw: Tensor, limit: Tensor, shared: Inverse
) -> None:
    """Improve the lower bounds with w, and with w moved so that its correlations keep to `limit`.

    Where a correlation exceeds its limit, scaling the dual point down costs the bound in proportion
    to the excess e; moving it by (G + ε)⁻¹e costs ½eᵀG⁻¹e, of second order, since the columns in
    question are off the support.
    """
    best.certify(rows, w, Gw)
    gram, h = best.problem.gram, best.problem.h[rows]
    for _ in range(_CORRECTIONS):
        c = h - Gw
        step = shared.apply(c - c.clamp(-limit, limit))
        w, Gw = w + step, Gw + gram.apply(step)
        best.certify(rows, w, Gw)


_CORRECTIONS = 2


def _most_violated(violation: Tensor, count: Tensor) -> Tensor:
    """Marks, in each row, at most `count` columns with a violation above 1, the largest."""
    violation = torch.where(violation > 1 + 1e-9, violation, 0.0)
    ordered = violation.sort(1, descending=True).values
    least = ordered.gather(1, (count[:, None] - 1).clamp(0, violation.shape[1] - 1))
    return (violation > 0) & (violation >= least)


def _step_length(problem: RowProblem, now: _Support, target: Tensor, image: Tensor) -> Tensor:
    """(k, 1) steps towards the target, halved until the objective does not rise."""
    t = torch.ones_like(target[:, :1])
    limit = problem.objective(now.point, now.image) + problem.rounding()
    for _ in range(_HALVINGS):
        value = problem.objective(torch.lerp(now.point, target, t), torch.lerp(now.image, image, t))
        up = value > limit
        if not bool(up.any()):
            break
        t = torch.where(up[:, None], 0.5 * t, t)
    return torch.where(up[:, None], 0.0, t)


_FIRST_RUNG = 2
_HALVINGS = 12
# Share of the way to its target within which a column's change of sign blocks a step.
_BLOCKING = 0.05
_TINY = 1e-300
# Exchanges in one round up to which the row goes on to a smaller ε.
_SETTLED = 5
_REFINEMENTS = 6


def _binding(v: Tensor, problem: RowProblem) -> Tensor:
    """Rows whose block a lies on the ball."""
    if not problem.ball:
        return torch.zeros(len(v), dtype=torch.bool, device=v.device)
    return v[:, : problem.ball].abs().sum(1) > problem.kappa * (1 - 1e-9)


def _on_support(
    problem: RowProblem, now: _Support, epsilon: Tensor, shared: Inverse
) -> tuple[Tensor, Tensor]:
    """The answer (k, D) and θ (k,) of the equations on the supports of `now`."""
    edge = now.sign.clone()
    edge[:, problem.ball :] = 0
    edge = torch.where(now.binding[:, None], edge, 0.0)
    right = problem.h - problem.l1 * now.sign + epsilon * now.point
    support = _SupportSolve(problem, now.sign != 0, shared)
    floor = 16 * torch.finfo(right.dtype).eps * float(problem.h.abs().max())
    w, theta = support.solve(right), torch.zeros_like(problem.zz)
    if bool(now.binding.any()):
        along = support.refine(support.solve(edge), edge, 1e-6)
        slope = (edge * along).sum(1)
    for _ in range(2):
        # θ multiplies the error of `along`: what is left of both is refined together, once more.
        w = support.refine(w, right - theta[:, None] * edge, max(1e-3 * problem.l1, floor))
        if bool(now.binding.any()):
            over = (edge * w).sum(1) - problem.kappa
            more = torch.where(slope > 0, over / torch.where(slope > 0, slope, 1.0), 0.0)
            w, theta = w - more[:, None] * along, theta + more
    return w, theta


class _SupportSolve:
    """Solves (G + diag(ρ))_SS x_S = r_S for each row with its own support S, x zero elsewhere."""

    def __init__(self, problem: RowProblem, support: Tensor, shared: Inverse) -> None:
        self.problem, self.shared, self.support = problem, shared, support
        self.small: list[tuple[Tensor, Tensor, bool]] = []  # columns, factor, whether inside S
        inside = support.sum(1)
        for row, mask in enumerate(support):
            within = bool(2 * inside[row] < support.shape[1])
            columns = (mask if within else ~mask).nonzero()[:, 0]
            if within:
                block = problem.gram.block(columns)
                block.diagonal().add_(shared.rho[columns])
            else:
                block = shared.block(columns)
            self.small.append((columns, cholesky(block), within))

    def refine(self, out: Tensor, right: Tensor, accuracy: float) -> Tensor:
        """Improve solutions to a residual of `accuracy`, or until it no longer helps.

        The shared inverse loses digits where ε is small and G is singular.
        """
        best, least = out, torch.inf
        for _ in range(_REFINEMENTS):
            left = right - self.problem.gram.apply(out) - self.shared.rho * out
            left = torch.where(self.support, left, 0.0)
            worst = float(left.abs().max())
            if worst < least:
                best, least = out, worst
            if worst <= accuracy or worst > least:
                break
            out = out + self.solve(left)
        return best

    def solve(self, right: Tensor) -> Tensor:
        """The solutions for right-hand sides (k, D)."""
        out = torch.zeros_like(right)
        outside = [i for i, (_, _, within) in enumerate(self.small) if not within]
        for row, (columns, factor, within) in enumerate(self.small):
            if within and len(columns):
                out[row, columns] = _solve(factor, right[row, columns])
        if outside:
            index = torch.tensor(outside, device=right.device)
            masked = torch.where(self.support[index], right[index], 0.0)
            out[index] = self.shared.apply(masked)
            multipliers = torch.zeros_like(masked)
            for place, row in enumerate(outside):
                columns, factor, _ = self.small[row]
                if len(columns):
                    multipliers[place, columns] = _solve(factor, out[row, columns])
            out[index] -= self.shared.apply(multipliers)
            out[index] = torch.where(self.support[index], out[index], 0.0)
        return out


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[:, None], factor)[:, 0]
