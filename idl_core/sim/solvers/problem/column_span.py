"""What the columns of M outside of the ball span: what least squares, and a proof, need.

Where neither a penalty nor the ball bounds b, or hardly, no bound on b of use follows from that of
the objective. But competitors with objectives of at most f keep M within reach: for two of them,
whose a are at most 2κ apart, ‖M_b(b - b*)‖ ≤ 2√(2f) + 2κ max‖M_a,j‖. So that c_b = M_bᵀν costs the
dual bound no more than

    c_bᵀb  =  c_bᵀb* + νᵀM_b(b - b*)  ≤  c_bᵀb* + ‖Pν‖ (2√(2f) + 2κ max‖M_a,j‖),

P the projection onto the range of M_b, ‖Pν‖² = c_bᵀ G_bb⁺ c_b. And where these columns are
independent, |b_j - b*_j| ≤ √(G_bb⁻¹)_jj (2√(2f) + 2κ max‖M_a,j‖).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1024  # samples that one orthogonalisation takes, at least


@dataclass(frozen=True)
class ColumnSpan:
    """The range of k columns of M.

    Attributes:
        weights: (k, r), W with WWᵀ = G⁺ of these columns: those of MW are an orthonormal basis.
        sure: how many leading columns of W are of directions that G itself distinguishes.
        whole: whether W shows all that they span. Without the data, G cannot tell directions of
            1e-8 of their length from none.
    """

    weights: Tensor
    sure: int
    whole: bool

    @classmethod
    def of_data(cls, data: Tensor, columns: Tensor) -> ColumnSpan:
        """Of these columns of M (m, D), as far as float64 distinguishes them.

        What is left out is nothing to within the rounding of the data themselves.
        """
        parts = data.split(max(_CHUNK, len(columns)))
        lengths = sum(part[:, columns].double().square().sum(0) for part in parts).sqrt()
        triangle = lengths.new_zeros(0, len(columns))
        for part in parts:
            scaled = part[:, columns].double() / lengths
            triangle = torch.linalg.qr(torch.cat([triangle, scaled]), mode="r").R
        _, sizes, right = torch.linalg.svd(triangle, full_matrices=False)
        rounding = max(len(data), len(columns)) * torch.finfo(sizes.dtype).eps
        seen, sure = sizes > rounding * sizes.max(), sizes > rounding**0.5 * sizes.max()
        weights = right[seen].T / sizes[seen] / lengths[:, None]
        return cls(weights.to(data.dtype).contiguous(), int(sure.sum()), True)

    @classmethod
    def of_matrix(cls, matrix: Tensor, samples: int) -> ColumnSpan:
        """Of columns with this Gram matrix (k, k)."""
        lengths = matrix.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(matrix / lengths / lengths[:, None])
        # Eigenvalues may be that much less than they seem, which W then counts on.
        unsure = max(samples, len(matrix)) * torch.finfo(values.dtype).eps * values.max()
        seen = values > 2 * unsure
        weights = vectors[:, seen] * (values[seen] - unsure).rsqrt() / lengths[:, None]
        return cls(weights.contiguous(), weights.shape[1], bool(seen.all()))

    @property
    def axes(self) -> Tensor | None:
        """(k,) how far each weight moves, at most, where Mw moves by 1; None where columns depend
        on each other, so that weights move and Mw does not."""
        if not self.whole or self.weights.shape[1] < len(self.weights):
            return None
        return torch.linalg.vector_norm(self.weights, dim=1)

    def solve(self, right: Tensor) -> Tensor:
        """right (n, k), known from products with G, times G⁺ as far as that is sure."""
        weights = self.weights[:, : self.sure]
        return (right @ weights) @ weights.T

    def length(self, c: Tensor, error: Tensor, most: Tensor) -> Tensor:
        """(n,) ‖Pν‖ or more, from c = Mᵀν (n, k) to within `error`, and `most` ≥ ‖ν‖."""
        if not self.whole:
            return most
        along = (c @ self.weights).abs() + error @ self.weights.abs()
        return torch.minimum(torch.linalg.vector_norm(along, dim=1), most)
