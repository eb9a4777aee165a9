"""What a fixed-point solve returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

from torch import Tensor


class ImplicitFunctionWarning(RuntimeWarning):
    """A fixed-point solve did not reach its tolerance, or could not for want of precision."""


@dataclass(frozen=True)
class Solution:
    """Outcome of a fixed-point solve over a batch of m samples.

    Attributes:
        value: the fixed point, shaped as the initial guess.
        iterations: (m,) int64, applications of the map to each sample.
        residual: (m,) max-norm of f(x) - x, the quantity that the tolerance bounds.
        converged: (m,) bool, residual within the tolerance or, where that is larger, within the
            rounding error of numbers of the sample's magnitude.
    """

    value: Tensor
    iterations: Tensor
    residual: Tensor
    converged: Tensor

    def warn_unless_converged(self, what: str) -> None:
        """Emit one `ImplicitFunctionWarning` if any sample is short of its tolerance."""
        if bool(self.converged.all()):
            return
        failed = ~self.converged
        warnings.warn(
            f"{what} did not converge for {int(failed.sum())} of {failed.numel()} samples: "
            f"residual {float(self.residual[failed].max()):.3e} "
            f"after {int(self.iterations.max())} iterations",
            ImplicitFunctionWarning,
            stacklevel=3,
        )

    def detach(self) -> Solution:
        """The same solution, its value cut from the autograd graph."""
        return replace(self, value=self.value.detach())


@dataclass
class LastSolution:
    """What the most recent solve of a model did; `adjoint` is None until backward has run."""

    forward: Solution | None = None
    adjoint: Solution | None = None
