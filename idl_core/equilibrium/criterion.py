"""When a solve may stop: the residual, its tolerance, and what the number format can resolve."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from idl_core.equilibrium.solution import ImplicitFunctionWarning, Solution

# A map evaluated in floating point moves by a few units in the last place at its own fixed point.
ROUNDING_UNITS = 4.0

_told: set[tuple[float, torch.dtype]] = set()


class Criterion:
    """Stops a solve when every sample's max-norm residual is within `tol` (absolute).

    Args:
        tol: bound on max|f(x) - x|, for each sample.
        unit: 0-d tensor that tol is multiplied by (the adjoint measures in units of its right-hand
            side); None is 1. It stays on its device: no host synchronisation.
    """

    def __init__(self, tol: float, unit: Tensor | None = None) -> None:
        self.tol = tol
        self.unit = unit
        self.residual = torch.empty(0)
        self.bound = torch.empty(0)

    def measure(self, new: Tensor, old: Tensor) -> float:
        """Residual of `old`, whose image under the map is `new`, both (m, n).

        Returns the worst sample's residual over its tolerance, in one host synchronisation:
        at most 1 when all samples have converged, nan where a residual is not finite.
        """
        if not new.numel():
            self.residual = new.new_zeros(new.shape[0])
            self.bound = self.residual
            return 0.0
        # abs + amax is several times faster on the CPU than torch.linalg.vector_norm(ord=inf).
        self.residual = torch.sub(new, old).abs_().amax(1)
        self.bound = new.abs().amax(1).mul_(ROUNDING_UNITS * torch.finfo(new.dtype).eps)
        if self.unit is None:
            self.bound.clamp_(min=self.tol)
        else:
            self.bound = torch.maximum(self.bound, self.unit * self.tol)
        return float((self.residual / self.bound).amax())

    def solution(self, value: Tensor, iterations: int) -> Solution:
        """The `Solution` for the residual that was measured last."""
        converged = self.residual <= self.bound
        count = torch.full(self.residual.shape, iterations, device=self.residual.device)
        return Solution(value, count, self.residual, converged)

    def tell_if_unreachable(self, value: Tensor) -> None:
        """Say, once for each tolerance and dtype, that rounding and not tol ended the solve."""
        key = (self.tol, value.dtype)
        if self.unit is not None or key in _told:
            return
        if bool((self.residual > self.tol).any()) and bool((self.residual <= self.bound).all()):
            _told.add(key)
            warnings.warn(
                f"tol={self.tol:g} is finer than {value.dtype} resolves at the size of X "
                f"(max|X| = {float(value.abs().max()):.3g}): solved to rounding error, "
                f"{float(self.bound.max()):.1e}. Use float64 for less.",
                ImplicitFunctionWarning,
                stacklevel=2,
            )
