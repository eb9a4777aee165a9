"""A solution whose compiled solve leaves three figures of each sample."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from idl_core.equilibrium.criterion import say_unreachable
from idl_core.equilibrium.solution import ROUNDING_UNITS, Solution


class FiguredSolution(Solution):
    """Outcome of a solve of m samples, told by its figures.

    Args:
        value: the fixed point (m, n).
        figures: (3, m): |f(x) - x| of each sample, the bound on it, applications of the map.
        tol: what was asked for.
        all_converged: whether every sample is within its bound.
    """

    figures: Tensor

    def __init__(self, value: Tensor, figures: Tensor, tol: float, *, all_converged: bool) -> None:
        # One by one: torch.compile does not follow the update of a frozen object's dictionary.
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "figures", figures)
        object.__setattr__(self, "tol", tol)
        object.__setattr__(self, "all_converged", all_converged)

    @cached_property
    def maps(self) -> Tensor:
        """(m,) int64, applications of the map to each sample."""
        return self.figures[2].long()

    @cached_property
    def change(self) -> Tensor:
        """(m, 1), the largest of |f(x) - x|."""
        return self.figures[0][:, None]

    @cached_property
    def converged(self) -> Tensor:
        """(m,) bool: the residual is within the tolerance or, where larger, the rounding error."""
        return (self.figures[0] <= self.figures[1]) & self.figures[0].isfinite()

    @cached_property
    def limit(self) -> Tensor:
        """(m,) the bound on the residual."""
        return self.figures[1]

    def with_value(self, value: Tensor) -> Solution:
        return FiguredSolution(value, self.figures, self.tol, all_converged=self.all_converged)

    def say_where_rounding_decides(self) -> None:
        """Say it where the number format, not the tolerance, has ended the solve of a sample."""
        residual, bound, _ = self.figures
        # Of a float32 tolerance the last digit does not count.
        if bool((residual > self.tol * (1 + 1e-6)).any()) and self.all_converged:
            rounding = ROUNDING_UNITS * torch.finfo(residual.dtype).eps
            say_unreachable(self.tol, residual.dtype, float(bound.max()) / rounding)


def worst_of(figures: Tensor) -> Tensor:
    """(3, m) of the figures of several solves (steps, 3, m): for each sample the largest residual,
    of those above their bounds if there are such, its bound, and the most applications of the map.
    """
    residual, bound, maps = figures.unbind(1)
    failed = ~(residual <= bound)
    counted = residual.where(failed | ~failed.any(0), -1.0)
    worst = counted.argmax(0, keepdim=True)  # what is not a number counts as the largest
    return torch.cat((residual.gather(0, worst), bound.gather(0, worst), maps.amax(0)[None]))
