"""The quadratic ½‖z - Mw‖² seen through its Gram matrix MᵀM, and inverses of MᵀM + diag(ρ)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from idl_core.sim.memory import prefers_data
from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.column_span import ColumnSpan


class Gram:
    """G = MᵀM for data M (m, D), held on its smaller side.

    With m > D/2 the D x D matrix is held, since applying it costs D² a row; below that the data
    themselves are, at 2mD a row, and nothing of size D² is ever formed.

    Args:
        matrix: G (D, D); or None
        data: M (m, D), in place of G.
        samples: m, where only G is given; bounds its rank.
        origin: what gives the data that G was made of, and which of their columns.
    """

    def __init__(
        self,
        matrix: Tensor | None = None,
        data: Tensor | None = None,
        samples: int | None = None,
        origin: tuple[Callable[[], Tensor], Tensor] | None = None,
    ) -> None:
        if (matrix is None) == (data is None):
            raise ValueError("give either the Gram matrix or the data, not both")
        self.matrix, self.data = matrix, data
        self.samples = samples if data is None else len(data)
        self.origin = origin
        self._spans: dict[int, ColumnSpan] = {}

    @classmethod
    def of(cls, data: Tensor) -> Gram:
        """The cheaper form for data M (m, D)."""
        if prefers_data(*data.shape):
            return cls(data=data)
        every = torch.arange(data.shape[1], device=data.device)
        return cls(matrix=data.T @ data, samples=len(data), origin=(lambda: data, every))

    @property
    def size(self) -> int:
        """D."""
        held = self.data if self.matrix is None else self.matrix
        assert held is not None
        return held.shape[1]

    @property
    def rank(self) -> int:
        """An upper bound on the rank of G."""
        return self.size if self.samples is None else min(self.samples, self.size)

    def diagonal(self) -> Tensor:
        """Squared lengths (D,) of the columns of M."""
        if self.matrix is not None:
            return self.matrix.diagonal()
        assert self.data is not None
        return (self.data * self.data).sum(0)

    def apply(self, rows: Tensor) -> Tensor:
        """rows (k, D) times G."""
        if self.matrix is not None:
            return rows @ self.matrix
        assert self.data is not None
        return (rows @ self.data.T) @ self.data

    @cached_property
    def absolute(self) -> Gram:
        """|M|ᵀ|M|, or |MᵀM|, which is at most that: how much a product with G sums."""
        if self.matrix is not None:
            return Gram(matrix=self.matrix.abs(), samples=self.samples)
        assert self.data is not None
        return Gram(data=self.data.abs())

    def select(self, columns: Tensor) -> Gram:
        """The same for some of the columns of M: indices, or a mask (D,)."""
        if self.matrix is not None:
            origin = None if self.origin is None else (self.origin[0], self.origin[1][columns])
            return Gram(self.matrix[columns][:, columns], samples=self.samples, origin=origin)
        assert self.data is not None
        return Gram(data=self.data[:, columns])

    def span(self, first: int) -> ColumnSpan:
        """What the columns of M from the first of that index on span, found once."""
        if first not in self._spans:
            self._spans[first] = self._span(first)
        return self._spans[first]

    def _span(self, first: int) -> ColumnSpan:
        if self.data is not None:
            every = torch.arange(self.size, device=self.data.device)
            return ColumnSpan.of_data(self.data, every[first:])
        if self.origin is not None:
            data, columns = self.origin
            return ColumnSpan.of_data(data(), columns[first:])
        assert self.matrix is not None
        return ColumnSpan.of_matrix(self.matrix[first:, first:], self.samples or self.size)

    def block(self, columns: Tensor) -> Tensor:
        """G restricted to some columns, as a matrix."""
        if self.matrix is not None:
            return self.matrix[columns][:, columns]
        assert self.data is not None
        part = self.data[:, columns]
        return part.T @ part

    def inverse(self, rho: Tensor) -> Inverse:
        """Factor G + diag(rho), rho (D,) positive."""
        return Inverse(self, rho)


class Inverse:
    """(G + diag(rho))⁻¹, factored once, on the smaller side.

    Dense form: the inverse itself, so that an application is one product. Thin form: with
    K = I + M diag(rho)⁻¹ Mᵀ = LLᵀ (m, m) and T = L⁻¹ M diag(rho)⁻¹, the inverse is
    diag(rho)⁻¹ - TᵀT (Sherman-Morrison-Woodbury).
    """

    def __init__(self, gram: Gram, rho: Tensor) -> None:
        self.rho = rho
        self.matrix: Tensor | None = None
        if gram.matrix is not None:
            # Scaled to a unit diagonal first: the columns of M may differ by many orders.
            scale = (gram.matrix.diagonal() + rho).rsqrt()
            scaled = gram.matrix * scale[:, None] * scale
            scaled.diagonal().add_(rho * scale * scale)
            self.matrix = torch.cholesky_inverse(_factor(scaled))
            self.matrix.mul_(scale[:, None]).mul_(scale)
        else:
            assert gram.data is not None
            over = gram.data / rho
            kernel = over @ gram.data.T
            kernel.diagonal().add_(1.0)
            self.thin = torch.linalg.solve_triangular(_factor(kernel), over, upper=False)

    def apply(self, rows: Tensor) -> Tensor:
        """rows (k, D) times the inverse."""
        if self.matrix is not None:
            return rows @ self.matrix
        return rows / self.rho - (rows @ self.thin.T) @ self.thin

    def block(self, columns: Tensor) -> Tensor:
        """The inverse restricted to some columns, as a matrix."""
        if self.matrix is not None:
            return self.matrix[columns][:, columns]
        part = self.thin[:, columns]
        return torch.diag(1 / self.rho[columns]) - part.T @ part


def _factor(matrix: Tensor) -> Tensor:
    factor = cholesky(matrix)
    if not bool(factor.isfinite().all()):
        raise ArithmeticError("the Gram matrix is not finite: check X and U for NaN or infinity")
    return factor
