"""The directions in which the data leave an answer free, and what they fix along the others.

A row that M fits almost exactly, min ½‖z - Mw‖² + λ‖w‖₁ with a small λ, is pinned by the data
along every eigenvector of G = MᵀM with an eigenvalue far above λ: the penalty decides only along
the few others, constant or nearly collinear pixels. Where the ball on a binds, its multiplier may
be of any size, and no direction of a is strong beside it: all of a is free, and b follows it.

With K = G + l2 and V the strong eigenvectors of K on the columns that are not free for themselves,
w = N t + (a combination of V), the columns of N K-orthogonal to V, so that

    ½wᵀKw - hᵀw  =  ½tᵀΛt - (Nᵀh)ᵀt + (terms of the second part alone),    Λ = NᵀKN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.weighted_products import WeightedProducts
from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.row_problem import RowProblem

_LOW = 1e5  # eigenvalues up to this multiple of λ are low curvature
_FEW = 128  # directions that always pay
_SHARE = 1 / 3  # of all directions that may be free: each row factors a matrix of that size


class LowCurvatureSubspace:
    """A basis N of the free directions, and the strong ones.

    Attributes:
        l1, ball: of the problem.
        free: entries that are free for themselves: the first columns of N, which b follows.
        N: (D, d).
        curvature: (d, d), Λ.
        products: of N.
    """

    def __init__(
        self,
        problem: RowProblem,
        matrix: Tensor,
        free: int,
        eigen: tuple[Tensor, Tensor],
        low: int,
    ) -> None:
        """Of K (D, D), whose first `free` entries are free for themselves; of the eigenvectors of
        the rest of it, ascending, the first `low` are."""
        values, vectors = eigen
        self.l1, self.ball, self.free = problem.l1, problem.ball, free
        self.strong, self.inverse = vectors[:, low:].contiguous(), 1 / values[low:]
        self.N = matrix.new_zeros(len(matrix), free + low)
        self.N[free:, free:] = vectors[:, :low]
        self.N[:free, :free].fill_diagonal_(1)
        self.N[free:, :free] = -(self.strong * self.inverse) @ (
            self.strong.T @ matrix[free:, :free]
        )
        self.curvature = self.N.T @ (matrix @ self.N)
        self.products = WeightedProducts(self.N, free)

    @classmethod
    def of(cls, problem: RowProblem, free: int) -> LowCurvatureSubspace | None:
        """The space of all rows with this G, λ and ball; None where nothing is free, or too much
        to pay."""
        gram, l2 = problem.gram, problem.l2
        most, matrix = max(_FEW, int(_SHARE * gram.size)), gram.matrix
        if matrix is None or not problem.l1 or gram.size - gram.rank + free > most:
            return None
        if matrix.dtype != torch.float64:
            return None  # what distinguishes low directions is below its rounding
        if l2:
            matrix = matrix.clone()
            matrix.diagonal().add_(l2)
        eigen = torch.linalg.eigh(matrix[free:, free:])
        low = int((eigen[0] <= _LOW * problem.l1).sum())
        return cls(problem, matrix, free, eigen, low) if 0 < free + low <= most else None

    @property
    def row_numbers(self) -> int:
        """Numbers that the work on one row takes, to bound memory."""
        D, d = self.N.shape
        return d * d + 8 * D

    def least_squares(self, h: Tensor, pinned: Tensor) -> Callable[[float], Tensor]:
        """What takes a ridge ρ to the t (k, d) of least ½wᵀKw - hᵀw + ½λ‖w‖² + ½λρ‖a‖²."""
        basis, on_ball = self._ridges
        fit = (h @ self.N / self.l1 - pinned @ self.N) @ basis
        shrink = (pinned[:, : self.ball] @ self.N[: self.ball]) @ basis
        return lambda ridge: ((fit - ridge * shrink) / (1 + ridge * on_ball)) @ basis.T

    @cached_property
    def _ridges(self) -> tuple[Tensor, Tensor]:
        """A basis (d, d), and values (d,), in which Λ/λ + NᵀN is the identity and N_aᵀN_a diagonal,
        N_a being the rows of N that the ball binds."""
        factor = cholesky(self.curvature / self.l1 + self.N.T @ self.N)
        half = torch.linalg.solve_triangular(factor, self.N[: self.ball].T, upper=False)
        values, rotation = torch.linalg.eigh(half @ half.T)
        return torch.linalg.solve_triangular(factor.T, rotation, upper=True), values.clamp(min=0)

    def along_strong(self, right: Tensor) -> Tensor:
        """Vᵀ right, for right (k, D)."""
        return right[:, self.free :] @ self.strong

    def along_cost(self, along: Tensor) -> Tensor:
        """½ alongᵀ (VᵀKV)⁻¹ along, (k,)."""
        return 0.5 * (along * along * self.inverse).sum(1)

    def pinned(self, along: Tensor) -> Tensor:
        """V (VᵀKV)⁻¹ along (k, D): with along = Vᵀ right, the part along V of what solves
        Kw = right."""
        out = along.new_zeros(len(along), len(self.N))
        out[:, self.free :] = (along * self.inverse) @ self.strong.T
        return out
