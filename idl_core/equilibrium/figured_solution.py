"""A solution whose compiled solve leaves three figures of each sample."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from idl_core.equilibrium.solution import Solution


class FiguredSolution(Solution):
    """Outcome of a solve of m samples, told by its figures.

    Attributes:
        figures: (3, m): |f(x) - x| of each sample, the bound on it, applications of the map.
    """

    figures: Tensor

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
