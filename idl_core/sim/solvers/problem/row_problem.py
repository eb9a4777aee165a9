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
above rounding it is too large to be of use, but there is another, on Mw (`column_span`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.problem.column_span import ColumnSpan
from idl_core.sim.solvers.problem.compressed_data import CompressedData, Targets
from idl_core.wellposed import project_rows

# Units of rounding that the evaluation of an objective or a bound can be wrong by, relative to
# the largest of its terms.
ROUNDING = 4.0
_TINY = 1e-300


@dataclass(frozen=True)
class Residual:
    """What k rows' points w make of the data.

    Attributes:
        nu: (k, r), Qᵀz - Rw.
        c: (k, D), Mᵀν.
        square: (k,), ‖ν‖², with what of z is outside of the range of M.
        along: (k,), zᵀν.
    """

    nu: Tensor
    c: Tensor
    square: Tensor
    along: Tensor


@dataclass(frozen=True)
class RowProblem:
    """k rows with the same data.

    Attributes:
        data: M.
        targets: z of each row.
        ball: number of leading columns, the block a, that the ball binds; 0 for no ball.
        kappa: radius κ of that ball.
        l1, l2: weights of the penalties.
        span: of the columns of the block b, where it has been found: it takes some time.
    """

    data: CompressedData
    targets: Targets
    ball: int
    kappa: float
    l1: float
    l2: float
    span: ColumnSpan | None = None

    def rows(self, index: Tensor) -> RowProblem:
        """The problem of some of the rows."""
        return replace(self, targets=self.targets.rows(index))

    @property
    def count(self) -> int:
        """k."""
        return len(self.targets.rest)

    @property
    def zz(self) -> Tensor:
        """(k,) ‖z‖²."""
        return (self.targets.z**2).sum(1) + self.targets.rest

    def scale(self, objective: Tensor) -> Tensor:
        """(k,) what a gap is relative to: max(objective, 1e-6 · ½‖z‖²)."""
        return torch.maximum(objective, 0.5e-6 * self.zz)

    def residual(self, w: Tensor) -> Residual:
        """Of any points w (k, D)."""
        z, rest = self.targets.z, self.targets.rest
        nu = z - w @ self.data.factor.T
        c = nu @ self.data.factor
        return Residual(nu, c, (nu * nu).sum(1) + rest, (z * nu).sum(1) + rest)

    def objective(self, v: Tensor, at: Residual) -> Tensor:
        """(k,) objective of feasible rows v (k, D), or what it can be at most for rounding."""
        size = v.abs()
        hidden = self.data.unit * (size @ self.data.lengths)
        fit = 0.5 * at.square + hidden * (at.square.sqrt() + hidden)
        return fit + self.l1 * size.sum(1) + 0.5 * self.l2 * (v * v).sum(1)

    def dual_bound(self, at: Residual, best: Tensor, answer: Tensor) -> Tensor:
        """(k,) lower bounds on the optimum from residuals.

        Args:
            at: residuals of any points.
            best: (k,), objective of the best answer known.
            answer: (k, D), that answer.
        """
        length = at.square.sqrt()
        error = self.data.unit * length[:, None] * self.data.lengths
        slack = ROUNDING * torch.finfo(length.dtype).eps * (self.zz + at.square)
        slack = slack + self.data.unit * self.zz.sqrt() * length
        size = at.c.abs() + error
        ca, cb = size[:, : self.ball], size[:, self.ball :]
        worst = cb.amax(1) if cb.shape[1] else torch.zeros_like(best)
        feasible = (self.l1 / worst.clamp(min=torch.finfo(size.dtype).tiny)).clamp(max=1.0)
        bound = torch.full_like(best, -torch.inf)
        known = self._known(at, error, best, answer)
        for s in (torch.ones_like(feasible), feasible):
            value = s * at.along - 0.5 * s * s * at.square - self._in_ball(s, ca)
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
        self, at: Residual, error: Tensor, best: Tensor, answer: Tensor
    ) -> tuple[Tensor, Tensor | None] | None:
        """What c_bᵀb (k,), and each |b_j| (k, ·), can be where w is as good as the best known."""
        if self.span is None:
            return None
        c, error, b = (part[:, self.ball :] for part in (at.c, error, answer))
        reach = 2 * (2 * (best + self.rounding())).sqrt()
        if self.ball:
            reach = reach + 2 * self.kappa * self.data.lengths[: self.ball].max()
        along = (c * b + error * b.abs()).sum(1)
        whole = along + reach * self.span.length(c, error, at.square.sqrt())
        if self.span.axes is None:
            return whole, None
        return whole, b.abs() + reach[:, None] * self.span.axes

    def rounding(self) -> Tensor:
        """(k,) what the evaluation of objective and bound may be wrong by: added to every gap."""
        return ROUNDING * torch.finfo(self.zz.dtype).eps * self.zz
