"""What a fixed-point solve returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

# A map evaluated in floating point moves by a few units in the last place at its own fixed point.
ROUNDING_UNITS = 4.0


class ImplicitFunctionWarning(RuntimeWarning):
    """A solve did not reach its tolerance, or could not for want of precision."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Outcome of a fixed-point solve over a batch of m samples.

    The figures of single samples are computed when they are first asked for: a training step
    that asks for none pays for none.

    Attributes:
        value: the fixed point, shaped as the initial guess.
        maps: applications of the map, one number for the batch or (m,).
        change: (m, n) |f(x) - x| as it was measured last.
        tol: the bound on `change` that was asked for.
        all_converged: whether every sample is within its bound.
    """

    value: Tensor
    maps: int | Tensor
    change: Tensor
    tol: float
    all_converged: bool

    @cached_property
    def iterations(self) -> Tensor:
        """(m,) int64, applications of the map to each sample."""
        if isinstance(self.maps, Tensor):
            return self.maps
        return torch.full(self.residual.shape, self.maps, device=self.residual.device)

    @cached_property
    def residual(self) -> Tensor:
        """(m,) max-norm of f(x) - x, the quantity that the tolerance bounds."""
        return row_max(self.change)

    @cached_property
    def converged(self) -> Tensor:
        """(m,) bool: the residual is within the tolerance or, where larger, the rounding error."""
        return (self.residual <= self.limit) & self.residual.isfinite()

    @cached_property
    def limit(self) -> Tensor:
        """(m,) the bound on the residual: the tolerance or, where larger, the rounding error."""
        return bound(self.value.reshape(self.change.shape), self.tol)

    def warn_unless_converged(self, what: str) -> None:
        """Emit one `ImplicitFunctionWarning` if any sample is short of its tolerance."""
        if self.all_converged:
            return
        failed = ~self.converged
        if not failed.any():
            return
        warnings.warn(
            f"{what} did not converge for {int(failed.sum())} of {failed.numel()} samples: "
            f"residual {float(self.residual.max()):.3e} "
            f"after {int(self.iterations.max())} iterations",
            ImplicitFunctionWarning,
            stacklevel=3,
        )

    def with_value(self, value: Tensor) -> Solution:
        """The same outcome for a reshaped or differentiable value."""
        return replace(self, value=value)


@dataclass
class LastSolution:
    """What the most recent solve of a model did; `adjoint` is None until backward has run."""

    forward: Solution | None = None
    adjoint: Solution | None = None


def bound(x: Tensor, tol: float) -> Tensor:
    """(m,) bound on the residual of each row of x (m, n): tol or, where larger, rounding error."""
    return row_max(x.abs()).mul_(ROUNDING_UNITS * torch.finfo(x.dtype).eps).clamp_(min=tol)


def row_max(magnitude: Tensor) -> Tensor:
    """Largest entry of each row of a matrix of non-negative entries, 0 for rows without any."""
    if not magnitude.numel():
        return magnitude.new_zeros(magnitude.shape[0])
    return magnitude.amax(1)
