"""Solving (MᵀM + diag(q)) x = g for k rows, each with a q ≥ 0 of its own: what a step costs.

Three forms, of which the cheapest for the problem is taken:

- `DenseSystems` factors the D x D matrices.
- `RowSpaceSystems` factors matrices on the samples' side, I + R diag(q)⁻¹ Rᵀ (Sherman-Morrison-
  Woodbury): for few samples.
- `LowCurvatureSystems`: where the penalty is small beside most of the data's curvature, q matters
  only in the few directions N of low curvature. With V the others, K-orthogonal to N, the matrix is
  block diagonal but for q, and of Vᵀ(K + q)V only VᵀKV is kept, which all rows share.

Each is used as a preconditioner of the conjugate gradient method with the exact matrix, which takes
up what the factors leave out and what rounding did to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.weighted_products import WeightedProducts
from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.compressed_data import CompressedData

_MOST = 12  # iterations of conjugate gradients
_REFINEMENTS = 4
_GROWTH = 16.0  # the residual does not fall at every one
_STIFF = 100.0  # multiple of K's diagonal from which on a column's q is all that counts
_WORTHWHILE = 0.15  # share of such columns from which on they are left out of the factors
_TINY = 1e-300


class NewtonSystems(ABC):
    """One way to solve with K + diag(q), K = MᵀM.

    Attributes:
        data: M.
        row_numbers: numbers that the factors of one row take, to bound memory.
    """

    data: CompressedData
    row_numbers: int

    @abstractmethod
    def factored(self, q: Tensor) -> Factored:
        """Factors for q (k, D)."""


class Factored(ABC):
    """k factored systems."""

    def __init__(self, data: CompressedData, q: Tensor) -> None:
        self.data, self.q = data, q

    @abstractmethod
    def approximate(self, g: Tensor) -> Tensor:
        """Approximate solutions for g (s, k, D): linear in g, symmetric and positive definite."""

    def apply(self, x: Tensor) -> Tensor:
        """(K + diag(q)) x for x (s, k, D)."""
        return self.data.curve(x) + self.q * x

    def square(self, r: Tensor) -> Tensor:
        """(s, k) squared norms of residuals, scaled by the roots of the diagonal."""
        return (r * r / (self.data.lengths**2 + self.q)).sum(-1)

    def solve(self, g: Tensor, tol: float) -> tuple[Tensor, Tensor]:
        """Solutions for g (s, k, D) by preconditioned conjugate gradients.

        Args:
            tol: of the residual over g, in the norm of `square`.

        Returns:
            The solutions, and the error of each row (k,) by that norm.
        """
        aim = (tol * tol) * self.square(g)
        x = self.approximate(g)
        r = g - self.apply(x)
        far = self.square(r)
        direction = left = x  # of the first iteration there are none
        for iteration in range(_MOST):
            is_open = far > aim
            if not bool(is_open.any()):
                break
            z = self.approximate(r)
            before, left = left, (r * z).sum(-1)
            turn = torch.where(is_open, left / before, 0.0)[..., None] if iteration else 0.0
            direction = z + turn * direction if iteration else z
            curved = self.apply(direction)
            curvature = (direction * curved).sum(-1)
            going = is_open & (curvature > 0) & (left > 0)
            step = torch.where(going, left / curvature, 0.0)[..., None]
            after = r - step * curved
            reached = self.square(after)
            # Rows that rounding keeps from coming nearer stop where they are.
            going &= reached < _GROWTH * far
            if not bool(going.any()):
                break
            x = torch.where(going[..., None], x + step * direction, x)
            r = torch.where(going[..., None], after, r)
            far = torch.where(going, reached, far)
        error = tol * (far / aim.clamp(min=_TINY)).sqrt()
        return x, error.amax(0)


class DenseSystems(NewtonSystems):
    """Each row's K + diag(q) itself is factored, but for columns whose q is far above K's diagonal.

    Those are the weights on their way to zero, towards the end most of them where λ is large: of
    such columns the diagonal alone is kept.
    """

    def __init__(self, data: CompressedData) -> None:
        self.data, self.row_numbers = data, 2 * data.size**2

    def factored(self, q: Tensor) -> Factored:
        stiff = q > _STIFF * self.data.lengths**2
        if float(stiff.sum(1).double().mean()) < _WORTHWHILE * self.data.size:
            return _Dense(self.data, q)
        return _DenseParts(self.data, q, ~stiff)


class _Dense(Factored):
    def __init__(self, data: CompressedData, q: Tensor) -> None:
        super().__init__(data, q)
        matrix = data.gram.expand(len(q), -1, -1).clone()
        matrix.diagonal(dim1=1, dim2=2).add_(q)
        self.factor = _factor(matrix)

    def approximate(self, g: Tensor) -> Tensor:
        return _solved(self.factor, g)


class _DenseParts(Factored):
    """Of each row the columns `kept` (k, D) are factored."""

    def __init__(self, data: CompressedData, q: Tensor, kept: Tensor) -> None:
        super().__init__(data, q)
        self.over = 1 / (data.lengths**2 + q)
        self.parts = []
        for row, mask in enumerate(kept):
            columns = mask.nonzero()[:, 0]
            matrix = data.gram.index_select(0, columns).index_select(1, columns)
            matrix.diagonal().add_(q[row, columns])
            self.parts.append((columns, _factor(matrix[None])))

    def approximate(self, g: Tensor) -> Tensor:
        x = self.over * g
        for row, (columns, factor) in enumerate(self.parts):
            right = g[:, row].index_select(1, columns)
            x[:, row, columns] = _solved(factor, right[:, None])[:, 0]
        return x


class RowSpaceSystems(NewtonSystems):
    """Factors of size r, the rank of the data."""

    def __init__(self, data: CompressedData) -> None:
        self.data = data
        self.products = WeightedProducts(data.factor.T.contiguous(), 0)
        self.row_numbers = 2 * len(data.factor) ** 2

    def factored(self, q: Tensor) -> Factored:
        return _RowSpace(self.data, q, self.products)


class _RowSpace(Factored):
    def __init__(self, data: CompressedData, q: Tensor, products: WeightedProducts) -> None:
        super().__init__(data, q)
        self.over = 1 / q
        matrix = products.lower(self.over)
        matrix.diagonal(dim1=1, dim2=2).add_(1.0)
        self.factor = _factor(matrix)

    def approximate(self, g: Tensor) -> Tensor:
        R, scaled = self.data.factor, self.over * g
        return scaled - self.over * (_solved(self.factor, scaled @ R.T) @ R)

    def solve(self, g: Tensor, tol: float) -> tuple[Tensor, Tensor]:
        # With u = Rx, x = (g - Rᵀu)/q and (I + R diag(q)⁻¹ Rᵀ) u = R (g/q). What rounding leaves of
        # u = Rx is taken up by changes of x along diag(q)⁻¹Rᵀ, in which nothing cancels.
        R = self.data.factor
        u = _solved(self.factor, (self.over * g) @ R.T)
        x = self.over * (g - u @ R)
        for _ in range(_REFINEMENTS):
            left = x @ R.T - u
            error = torch.linalg.vector_norm(left, dim=-1)
            error = error / torch.linalg.vector_norm(u, dim=-1).clamp(min=_TINY)
            if bool((error <= tol).all()):
                break
            change = _solved(self.factor, left)
            u, x = u + change, x - self.over * (change @ R)
        return x, error.amax(0)


class LowCurvatureSystems(NewtonSystems):
    """Factors of size d, the number of directions of low curvature.

    The first `free` columns of M are of low curvature as they are, whatever the data say of them:
    the block a, where the ball's multiplier may be of any size.

    Args:
        eigen: eigenvalues, ascending, and eigenvectors of K on the columns from `free` on.
        low: how many of them are low.
    """

    def __init__(
        self, data: CompressedData, free: int, eigen: tuple[Tensor, Tensor], low: int
    ) -> None:
        self.data = data
        values, vectors = eigen
        gram, width = data.gram, data.size
        # V (VᵀKV)⁻¹ Vᵀ, and N with its columns made K-orthogonal to V.
        strong = vectors[:, low:]
        self.inverse = gram.new_zeros(width, width)
        self.inverse[free:, free:] = (strong / values[low:]) @ strong.T
        self.N = gram.new_zeros(width, free + low)
        self.N[:free, :free].fill_diagonal_(1)
        self.N[free:, free:] = vectors[:, :low]
        self.N[:, :free] -= self.inverse @ gram[:, :free]
        seen = data.factor @ self.N
        self.curvature = seen.T @ seen
        self.products = WeightedProducts(self.N, free)
        self.row_numbers = 2 * self.N.shape[1] ** 2 + 8 * width

    def factored(self, q: Tensor) -> Factored:
        return _LowCurvature(self, q)


class _LowCurvature(Factored):
    def __init__(self, systems: LowCurvatureSystems, q: Tensor) -> None:
        super().__init__(systems.data, q)
        self.systems = systems
        self.factor = _factor(systems.products.lower(q).add_(systems.curvature))

    def approximate(self, g: Tensor) -> Tensor:
        N, inverse = self.systems.N, self.systems.inverse
        low = _solved(self.factor, g @ N) @ N.T
        strong = (g - self.q * low) @ inverse
        return low + strong - _solved(self.factor, (self.q * strong) @ N) @ N.T


Matrices: TypeAlias = Tensor


def _factor(matrix: Matrices) -> Tensor:
    """Cholesky factors of k matrices, of which the lower triangles are read and overwritten."""
    # Relative to each entry: their sizes differ by as much as zeros from weights.
    matrix.diagonal(dim1=1, dim2=2).mul_(1 + 1e-15)
    return cholesky(matrix)


def _solved(factor: Tensor, right: Tensor) -> Tensor:
    """For right (s, k, d) the solutions with k factors.

    Where a matrix has no factor the solution is NaN: the row counts as done, its point is never
    taken, and its gap stays what it was.
    """
    columns = right.permute(1, 2, 0)
    # Not torch.cholesky_solve, which copies the factors.
    half = torch.linalg.solve_triangular(factor, columns, upper=False)
    solution: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return solution.permute(2, 0, 1)
