"""When a solve may stop: the residual, its tolerance, and what the number format can resolve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idl_core.equilibrium.solution import (
    ROUNDING_UNITS,
    LastChange,
    Solution,
    bound,
    row_max,
    warn_unreachable,
)


class Criterion:
    """Stops a solve when every sample's max-norm residual is within its bound.

    The bound is `tol` or, where that is finer than the number format resolves at the size of the
    sample, the rounding error there.

    Args:
        tol: bound on max|f(x) - x|, for each sample.
        unit: number or 0-d tensor that tol is multiplied by (the adjoint measures in units of its
            right-hand side); None is 1.
    """

    def __init__(self, tol: float, unit: Tensor | float | None = None) -> None:
        self.tol = tol if unit is None else tol * float(unit)
        self.size = math.nan  # max|f(x)|, known once a measurement has been above tol
        self._say = unit is None  # an adjoint would repeat what the forward solve has said
        self._change = torch.empty(0)
        self._worst = math.nan

    def measure(self, change: Tensor, new: Tensor) -> float:
        """Worst residual over its bound, for change = |new - old| (m, n), new the image of old.

        At most 1 when all samples have converged; not finite where a residual is not.
        """
        self._change = change
        worst = float(change.amax()) if change.numel() else 0.0
        if worst <= self.tol:
            self._worst = 0.0
            return 0.0
        rounding = ROUNDING_UNITS * torch.finfo(new.dtype).eps
        self.size = float(new.abs().amax())
        if worst <= rounding * self.size:
            # Rounding may decide, and it is each sample's own size that counts.
            self._worst = float((row_max(change) / bound(new, self.tol)).amax())
            if self._worst <= 1 and self._say:
                warn_unreachable(self.tol, new.dtype, self.size)
        else:
            self._worst = worst / self.tol if self.tol else math.inf
        return self._worst

    def solution(self, value: Tensor, maps: int) -> Solution:
        """The `Solution` for what was measured last."""
        measured = LastChange(self._change, value, self.tol, maps)
        return Solution(value, measured, self.tol, known_converged=self._worst <= 1)
