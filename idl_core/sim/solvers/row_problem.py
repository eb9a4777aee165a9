"""The convex problem of one row of [A B] or [C D], its objective and its duality gap.

    min over w = (a, b):  ½‖z - Mw‖² + l1‖w‖₁ + ½ l2‖w‖²   subject to ‖a‖₁ ≤ κ

with M = [Xᵀ Uᵀ] (m, D). Rows are independent (Tsai et al., arXiv 2209.09389, section 3), so that
every quantity here is computed for k rows at once.

The dual. For any ν in Rᵐ and every feasible w, Fenchel's inequality gives

    ½‖z - Mw‖² + g(w)  ≥  zᵀν - ½‖ν‖² - g*(Mᵀν),    g = l1‖·‖₁ + ½ l2‖·‖² + [‖a‖₁ ≤ κ]

and g* separates into the block a, the support function of the ball after soft-thresholding,
κ max(‖c_a‖∞ - l1, 0) for l2 = 0, and the block b, which for l2 = 0 asks for ‖c_b‖∞ ≤ l1. The point
ν is the residual z - Mw of some w, scaled so that this holds. What rounding leaves of a violation
is charged at R max(‖c_b‖∞ - l1, 0), where R bounds the ℓ1 norm of every w at least as good as the
best one known: R = objective / l1. With l1 = 0 no such bound exists, and R is `REACH` times the
norm of the best w known: the gap then covers every competitor within that distance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.gram import Gram
from idl_core.wellposed import project_rows

# How far, in norms of the answer, a competitor is looked for where λ = 0.
REACH = 100.0
# Units of rounding that the evaluation of an objective or a bound can be wrong by, relative to
# the largest of its terms.
ROUNDING = 4.0


@dataclass(frozen=True)
class RowProblem:
    """k rows with the same data.

    Attributes:
        gram: MᵀM.
        h: (k, D), Mᵀz of each row.
        zz: (k,), ‖z‖².
        lengths: (D,), ‖M_j‖ of the columns.
        ball: number of leading columns, the block a, that the ball binds; 0 for no ball.
        kappa: radius κ of that ball.
        l1, l2: weights of the penalties.
    """

    gram: Gram
    h: Tensor
    zz: Tensor
    lengths: Tensor
    ball: int
    kappa: float
    l1: float
    l2: float

    def rows(self, index: Tensor) -> RowProblem:
        """The problem of some of the rows."""
        return replace(self, h=self.h[index], zz=self.zz[index])

    def scale(self, objective: Tensor) -> Tensor:
        """(k,) what a gap is relative to: max(objective, 1e-6 · ½‖z‖²)."""
        return torch.maximum(objective, 0.5e-6 * self.zz)

    def prox(self, point: Tensor, rho: Tensor) -> Tensor:
        """argmin over v of g(v) + ½ Σ ρ (v - point)², exactly; rho (D,) constant on block a.

        Soft-thresholding, then the projection onto the ball: their composition is the proximal
        operator of the sum, since the ball's multiplier acts as one more threshold.
        """
        value = _soft(point, self.l1 / rho)
        if self.l2:
            value = value * (rho / (rho + self.l2))
        if self.ball:
            value[:, : self.ball] = project_rows(value[:, : self.ball], self.kappa)
        return value

    def objective(self, v: Tensor, Gv: Tensor) -> Tensor:
        """(k,) objective of feasible rows v (k, D), given Gv = vG."""
        fit = 0.5 * (self.zz + (v * (Gv - 2 * self.h)).sum(1)).clamp(min=0)
        return fit + self.l1 * v.abs().sum(1) + 0.5 * self.l2 * (v * v).sum(1)

    def dual_bound(self, w: Tensor, c: Tensor, best: Tensor, norm: Tensor) -> Tensor:
        """(k,) lower bounds on the optimum from the residuals ν = z - Mw.

        Args:
            w: (k, D), any point.
            c: (k, D), Mᵀν = h - wG.
            best: (k,), objective of the best answer known.
            norm: (k,), ℓ1 norm of the part of that answer outside the ball.
        """
        along = self.zz - (self.h * w).sum(1)
        square = (along - (c * w).sum(1)).clamp(min=0)
        reach = best / self.l1 if self.l1 else REACH * norm
        # What rounding may hide grows with the terms that were summed, which where columns are
        # nearly collinear are large beside their sum.
        unit, size = ROUNDING * torch.finfo(c.dtype).eps, w.abs()
        summed = self.gram.absolute.apply(size) + self.lengths * self.zz.sqrt()[:, None]
        slack = unit * (self.zz + (size * (self.h.abs() + summed)).sum(1))
        size = c.abs() + unit * summed
        ca, cb = size[:, : self.ball], size[:, self.ball :]
        worst = cb.amax(1) if cb.shape[1] else torch.zeros_like(best)
        feasible = (self.l1 / worst.clamp(min=torch.finfo(c.dtype).tiny)).clamp(max=1.0)
        bound = torch.full_like(best, -torch.inf)
        for s in (torch.ones_like(feasible), feasible):
            value = s * along - 0.5 * s * s * square
            bound = torch.maximum(bound, value - self._conjugates(s, ca, cb, reach) - slack)
        return bound

    def _conjugates(self, s: Tensor, ca: Tensor, cb: Tensor, reach: Tensor) -> Tensor:
        """g*(s c), both blocks."""
        total = torch.zeros_like(s)
        if cb.shape[1]:
            over = (s[:, None] * cb - self.l1).clamp(min=0)
            total = reach * over.amax(1)
            if self.l2:
                total = torch.minimum(total, (over * over).sum(1) / (2 * self.l2))
        if ca.shape[1]:
            over = (s[:, None] * ca - self.l1).clamp(min=0)
            if self.l2:
                # The maximiser of the concave sup is the projection of over/l2 onto the ball.
                best = project_rows(over / self.l2, self.kappa)
                total = total + (best * (over - 0.5 * self.l2 * best)).sum(1)
            else:
                total = total + self.kappa * over.amax(1)
        return total

    def rounding(self) -> Tensor:
        """(k,) what the evaluation of objective and bound may be wrong by: added to every gap."""
        return ROUNDING * torch.finfo(self.zz.dtype).eps * self.zz


def _soft(point: Tensor, threshold: Tensor) -> Tensor:
    """sign(point) · max(|point| - threshold, 0)."""
    return point - point.clamp(-threshold, threshold)
