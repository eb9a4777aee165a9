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
best one known: R = objective / l1. With l1 = l2 = 0 no such bound exists, and where l1 is hardly
above rounding it is too large to be of use, but there is another, on Mw (`span`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.problem.column_span import ColumnSpan
from idl_core.sim.solvers.problem.gram import Gram
from idl_core.wellposed import project_rows

_REFITS = 2  # the second takes up what the first has lost to rounding
# Units of rounding that the evaluation of an objective or a bound can be wrong by, relative to
# the largest of its terms.
ROUNDING = 4.0
_TINY = 1e-300


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
        span: of the columns of the block b, where it has been found: it takes some time.
    """

    gram: Gram
    h: Tensor
    zz: Tensor
    lengths: Tensor
    ball: int
    kappa: float
    l1: float
    l2: float
    span: ColumnSpan | None = None

    def rows(self, index: Tensor) -> RowProblem:
        """The problem of some of the rows."""
        return replace(self, h=self.h[index], zz=self.zz[index])

    def scale(self, objective: Tensor) -> Tensor:
        """(k,) what a gap is relative to: max(objective, 1e-6 · ½‖z‖²)."""
        return torch.maximum(objective, 0.5e-6 * self.zz)

    @property
    def is_unbound(self) -> bool:
        """Whether neither a penalty nor the ball bounds b."""
        return not (self.l1 or self.l2) and self.ball < self.gram.size

    def refitted(self, w: Tensor) -> Tensor:
        """w (k, D) with the b of least squares for its a, where nothing bounds b."""
        if not self.is_unbound or self.span is None:
            return w
        for _ in range(_REFITS):
            c = self.h - self.gram.apply(w)
            step = self.span.solve(c[:, self.ball :])
            w = torch.cat([w[:, : self.ball], w[:, self.ball :] + step], 1)
        return w

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

    def dual_bound(self, w: Tensor, c: Tensor, best: Tensor, answer: Tensor) -> Tensor:
        """(k,) lower bounds on the optimum from the residuals ν = z - Mw.

        Args:
            w: (k, D), any point.
            c: (k, D), Mᵀν = h - wG.
            best: (k,), objective of the best answer known.
            answer: (k, D), that answer.
        """
        along = self.zz - (self.h * w).sum(1)
        square = (along - (c * w).sum(1)).clamp(min=0)
        error, slack = self.errors(w)
        size = c.abs() + error
        ca, cb = size[:, : self.ball], size[:, self.ball :]
        worst = cb.amax(1) if cb.shape[1] else torch.zeros_like(best)
        feasible = (self.l1 / worst.clamp(min=torch.finfo(c.dtype).tiny)).clamp(max=1.0)
        bound = torch.full_like(best, -torch.inf)
        known = self._known(c, error, square + slack, best, answer)
        for s in (torch.ones_like(feasible), feasible):
            value = s * along - 0.5 * s * s * square - self._in_ball(s, ca)
            bound = torch.maximum(bound, value - self._unbound(s, cb, best, known) - slack)
        return bound

    def _in_ball(self, s: Tensor, ca: Tensor) -> Tensor:
        """(k,) the most that s c_aᵀa - l1‖a‖₁ - ½ l2‖a‖² can be in the ball."""
        if not ca.shape[1]:
            return torch.zeros_like(s)
        over = (s[:, None] * ca - self.l1).clamp(min=0)
        if not self.l2:
            return self.kappa * over.amax(1)
        # The maximiser of the concave sup is the projection of over/l2 onto the ball.
        a = project_rows(over / self.l2, self.kappa)
        return (a * (over - 0.5 * self.l2 * a)).sum(1)

    def _unbound(
        self, s: Tensor, cb: Tensor, best: Tensor, known: tuple[Tensor, Tensor | None] | None
    ) -> Tensor:
        """(k,) the most that s c_bᵀb - l1‖b‖₁ - ½ l2‖b‖² can be where w is as good as the best."""
        if not cb.shape[1]:
            return torch.zeros_like(s)
        over = (s[:, None] * cb - self.l1).clamp(min=0)
        most = torch.full_like(s, torch.inf)
        if self.l2:
            most = (over * over).sum(1) / (2 * self.l2)
        if self.l1:
            most = torch.minimum(most, best / self.l1 * over.amax(1))
        if known is not None:
            whole, each = known
            # The penalty pays for a share of c that has no entry above l1.
            share = (s - self.l1 / cb.amax(1).clamp(min=_TINY)).clamp(min=0)
            most = torch.minimum(most, share * whole)
            if each is not None:
                most = torch.minimum(most, (over * each).sum(1))
        return most

    def _known(
        self, c: Tensor, error: Tensor, square: Tensor, best: Tensor, answer: Tensor
    ) -> tuple[Tensor, Tensor | None] | None:
        """What c_bᵀb (k,), and each |b_j| (k, ·), can be where w is as good as the best known."""
        if self.span is None:
            return None
        c, error, b = (part[:, self.ball :] for part in (c, error, answer))
        reach = 2 * (2 * (best + self.rounding())).sqrt()
        if self.ball:
            reach = reach + 2 * self.kappa * self.lengths[: self.ball].max()
        along = (c * b + error * b.abs()).sum(1)
        whole = along + reach * self.span.length(c, error, square.sqrt())
        if self.span.axes is None:
            return whole, None
        return whole, b.abs() + reach[:, None] * self.span.axes

    def errors(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """What h - wG (k, D), and ½‖z - Mw‖² (k,) of it, may be wrong by.

        What rounding may hide grows with the terms that were summed, which where columns are
        nearly collinear are large beside their sum.
        """
        unit, size = ROUNDING * torch.finfo(w.dtype).eps, w.abs()
        summed = self.gram.absolute.apply(size) + self.lengths * self.zz.sqrt()[:, None]
        return unit * summed, unit * (self.zz + (size * (self.h.abs() + summed)).sum(1))

    def rounding(self) -> Tensor:
        """(k,) what the evaluation of objective and bound may be wrong by: added to every gap."""
        return ROUNDING * torch.finfo(self.zz.dtype).eps * self.zz


def _soft(point: Tensor, threshold: Tensor) -> Tensor:
    """sign(point) · max(|point| - threshold, 0)."""
    return point - point.clamp(-threshold, threshold)
