"""Which directions of the data are weak beside the penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.sim.solvers.gram import Gram

_MOST = 128  # weak directions; each row factors a matrix of that size
_WEAK = 1e5  # eigenvalues up to this multiple of λ are weak


class Spectrum:
    """Eigenvectors of G, split into the weak ones N and the strong ones.

    Attributes:
        N: (D, d) weak eigenvectors; curvature: (d,) their eigenvalues.
    """

    def __init__(self, values: Tensor, vectors: Tensor, weak: int) -> None:
        self.N, self.curvature = vectors[:, :weak].contiguous(), values[:weak].clamp(min=0)
        self.strong, self.inverse = vectors[:, weak:].contiguous(), 1 / values[weak:]

    @classmethod
    def of(cls, gram: Gram, l1: float) -> Spectrum | None:
        """The split for λ = l1; None where there are no weak directions, or too many to pay."""
        if gram.matrix is None or not l1 or gram.rank < gram.size - _MOST:
            return None
        values, vectors = torch.linalg.eigh(gram.matrix)
        weak = int((values <= _WEAK * l1).sum())
        return cls(values, vectors, weak) if 0 < weak <= _MOST else None

    def pinned(self, right: Tensor) -> Tensor:
        """The part of G⁺ right, right (k, D), along the strong directions."""
        return ((right @ self.strong) * self.inverse) @ self.strong.T
