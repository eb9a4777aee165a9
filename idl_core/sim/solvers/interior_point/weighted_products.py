"""Nᵀ diag(e) N for many e: what an interior-point method spends its time on."""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.memory import PAIRS

_BLOCKS = 4
_ALIKE = 1e7  # ratio of the largest weight to the least up to which float32 is enough


class WeightedProducts:
    """Nᵀ diag(e) N for k vectors e at once, N (D, d), whose first rows may be those of identity.

    Where they fit, the products of all pairs of N's columns are kept: one product of matrices then
    makes the lower triangles of all k. Where they do not, each is made in float32 as long as the
    weights are of like size: what a Newton step then loses, the next one makes good.

    Args:
        free: rows of N that are those of the identity.
    """

    def __init__(self, N: Tensor, free: int) -> None:
        self.free = free
        self.rest = N[free:].T.contiguous()
        d, rows = self.rest.shape
        self.pairs: Tensor | None = None
        if rows * d * (d + 1) // 2 <= PAIRS:
            self.pairs = torch.cat([self.rest[: i + 1] * self.rest[i] for i in range(d)])
            i, j = torch.tril_indices(d, d, device=N.device)
            self.places = i * d + j
        else:
            self.single = self.rest.float()

    def lower(self, e: Tensor) -> Tensor:
        """(k, d, d) for e (k, D), right in the lower triangles."""
        d, (first, rest) = len(self.rest), e.split([self.free, e.shape[1] - self.free], 1)
        if self.pairs is not None:
            flat = e.new_zeros(len(e), d * d).index_copy_(1, self.places, rest @ self.pairs.T)
            out = flat.view(-1, d, d)
        else:
            out = torch.stack([self._lower(weights) for weights in rest])
        out.diagonal(dim1=1, dim2=2)[:, : self.free] += first
        return out

    def _lower(self, weights: Tensor) -> Tensor:
        """The same for one e, without products above the blocks of the diagonal."""
        alike = bool(weights.max() <= _ALIKE * weights.min())
        rest = self.single if alike else self.rest
        scaled, d = rest * weights.to(rest.dtype), len(rest)
        out, width = weights.new_zeros(d, d), -(-d // _BLOCKS)
        for start in range(0, d, width):
            columns = slice(start, start + width)
            out[start:, columns] = scaled[start:] @ rest[columns].T
        return out
