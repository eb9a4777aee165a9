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


@dataclass(frozen=True)
class ColumnSpan:
    """The range of k columns of M.

    Attributes:
        weights: (k, r), W with WWᵀ = G⁺ of these columns: those of MW are an orthonormal basis.
    """

    weights: Tensor

    @classmethod
    def of_data(cls, data: Tensor, columns: Tensor) -> ColumnSpan:
        """Of these columns of M (m, D), none zero, as far as float64 distinguishes them.

        What is left out is nothing to within the rounding of the data themselves.
        """
        part = data[:, columns]
        lengths = torch.linalg.vector_norm(part, dim=0)
        _, sizes, right = torch.linalg.svd(part / lengths, full_matrices=False)
        rounding = max(part.shape) * torch.finfo(sizes.dtype).eps
        seen = sizes > rounding * sizes.max()
        return cls((right[seen].T / sizes[seen] / lengths[:, None]).contiguous())

    @property
    def axes(self) -> Tensor | None:
        """(k,) how far each weight moves, at most, where Mw moves by 1; None where columns depend
        on each other, so that weights move and Mw does not."""
        if self.weights.shape[1] < len(self.weights):
            return None
        axes: Tensor = torch.linalg.vector_norm(self.weights, dim=1)
        return axes

    def length(self, c: Tensor, error: Tensor, most: Tensor) -> Tensor:
        """(n,) ‖Pν‖ or more, from c = Mᵀν (n, k) to within `error`, and `most` ≥ ‖ν‖."""
        along = (c @ self.weights).abs() + error @ self.weights.abs()
        return torch.minimum(torch.linalg.vector_norm(along, dim=1), most)
