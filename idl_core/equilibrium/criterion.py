"""When a solve may stop: residuals, their tolerance, and what the number format can resolve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idl_core.equilibrium.solution import (
    ROUNDING_UNITS,
    LastChange,
    Solution,
    SolveStats,
    row_max,
    warn_unreachable,
)


class Criterion:
    """Stops a solve sample by sample: each ends as it would have ended alone.

    A sample has settled when its max-norm residual is within its bound, or is not finite, which
    no iteration mends. It is kept from then on, whatever further iterations for the rest of the
    batch do to it. The bound is `tol` or, where that is finer than the number format resolves at
    the size of the sample, the rounding error there.

    Args:
        tol: bound on max|f(x) - x|, for each sample.
        unit: number or 0-d tensor that tol is multiplied by (the adjoint measures in units of its
            right-hand side); None is 1.

    Attributes:
        residual: (m,) of each sample, as measured last.
        going: (m,) bool, samples that have not settled; empty until one was measured above tol.
    """

    def __init__(self, tol: float, unit: Tensor | float | None = None) -> None:
        self.tol = tol if unit is None else tol * float(unit)
        nothing = torch.empty(0)
        self.residual, self.going = nothing, nothing
        self._say = unit is None  # an adjoint would repeat what the forward solve has said
        self._change, self._sizes, self._bounds = nothing, nothing, nothing
        self._left = -1  # samples that have not settled; -1: none has been measured above tol
        self._converged = False
        # What settled before the rest did: which samples, their values and stats.
        self._settled: Tensor | None = None
        self._value = nothing
        self._stats = SolveStats(nothing, nothing, nothing)

    @property
    def size(self) -> float:
        """max|f(x)| of the samples that have not settled; nan until one was above tol."""
        return float(self._sizes.where(self.going, 0.0).amax()) if self._left > 0 else math.nan

    def measure(
        self, change: Tensor, new: Tensor, x: Tensor | None = None, count: int = 1
    ) -> float:
        """Worst residual over its bound among the samples that have not settled; 0 if all have.

        Args:
            change: |new - old| (m, n).
            new: the image of old.
            x: whichever of the two is the solution of a sample that settles now; None where no
                further iteration follows.
            count: applications of the map so far.
        """
        self._change, self.residual = change, row_max(change)
        residual = self.residual
        if self._settled is None and (not len(residual) or float(residual.amax()) <= self.tol):
            self._converged = True
            return 0.0
        self._sizes = row_max(new.abs())
        rounding = ROUNDING_UNITS * torch.finfo(new.dtype).eps
        self._bounds = (rounding * self._sizes).clamp_(min=self.tol)
        finite = residual.isfinite()  # what is infinite is within its infinite rounding error
        within = (residual <= self._bounds) & finite
        self.going = finite & ~within
        if self._settled is not None:
            self.going &= ~self._settled
        ratio = (residual / self._bounds).where(self.going, 0.0).amax()
        worst, left = torch.stack((ratio, self.going.sum().to(ratio.dtype))).tolist()
        self._converged = not left and self._settled is None and bool(within.all())
        if left != self._left and left < len(residual):
            self._warn_where_rounding_decides(within, new.dtype)
            if left and x is not None:
                self._keep(x, count)
        self._left = int(left)
        return float(worst)

    def _keep(self, x: Tensor, count: int) -> None:
        """Keep the samples that have settled now as they are."""
        counts = torch.full_like(self.residual, count)
        stats = SolveStats(self.residual, self._bounds, counts)
        if self._settled is None:
            self._settled, self._value, self._stats = ~self.going, x.clone(), stats
            return
        old = self._settled
        self._value = self._value.where(old[:, None], x)
        self._stats = self._stats.where(old, stats)
        self._settled = ~self.going

    def _warn_where_rounding_decides(self, within: Tensor, dtype: torch.dtype) -> None:
        if self._say:
            rounded = within & (self.residual > self.tol)
            if bool(rounded.any()):
                size = float(self._sizes.where(rounded, 0.0).amax())
                warn_unreachable(self.tol, dtype, size)

    def solution(self, value: Tensor, maps: int) -> Solution:
        """The `Solution`: of samples that had settled what was kept, of the others `value`."""
        if self._settled is None:
            measured = LastChange(self._change, value, self.tol, maps)
            return Solution(value, measured, self.tol, known_converged=self._converged)
        last = SolveStats(self.residual, self._bounds, torch.full_like(self.residual, maps))
        stats = self._stats.where(self._settled, last)
        value = self._value.where(self._settled[:, None], value)
        return Solution(value, stats, self.tol, known_converged=bool(stats.converged.all()))
