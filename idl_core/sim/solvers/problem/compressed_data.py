"""The data M and targets z of all rows, compressed by a QR factorisation where samples are many.

With M = QR the misfit ‖z - Mw‖² is ‖Qᵀz - Rw‖² + (‖z‖² - ‖Qᵀz‖²), so that m samples become at most
D. Residuals and correlations are then formed from R, never from the Gram matrix MᵀM, whose entries
carry the rounding of squared data.

Rounding. Any vector ν makes a dual bound, so the residual as computed is as good as the exact one:
only its correlations c = Mᵀν are uncertain, by the backward error of the factorisation and of one
inner product, some units times ‖M_j‖‖ν‖ (Higham, "Accuracy and stability of numerical algorithms",
2002, theorem 19.4). They do not grow with w. Of 2,000 digits the largest was one unit; 8 are
counted, and more with the square root of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

_CHUNK = 4  # samples that are factored at a time, in multiples of D


@dataclass(frozen=True)
class CompressedData:
    """R (r, D) with RᵀR = MᵀM, r ≤ m.

    Attributes:
        factor: R; M itself where there are no more samples than columns.
        lengths: (D,) ‖M_j‖ of the columns.
        unit: relative to ‖M_j‖‖ν‖, what rounding may hide of an inner product c_j = M_jᵀν.
    """

    factor: Tensor
    lengths: Tensor
    unit: float

    @classmethod
    def of(cls, factor: Tensor, samples: int) -> CompressedData:
        """From R of that many samples."""
        unit = torch.finfo(factor.dtype).eps * (4 + 0.1 * samples**0.5)
        return cls(factor, torch.linalg.vector_norm(factor, dim=0), unit)

    @property
    def size(self) -> int:
        """D."""
        return self.factor.shape[1]

    @property
    def rank(self) -> int:
        """An upper bound on the rank of M."""
        return min(self.factor.shape)

    @cached_property
    def gram(self) -> Tensor:
        """MᵀM (D, D)."""
        return self.factor.T @ self.factor

    def curve(self, w: Tensor) -> Tensor:
        """MᵀMw for w (..., D), by the cheaper of its two forms."""
        if self.rank < self.size / 2:
            return (w @ self.factor.T) @ self.factor
        return w @ self.gram

    def select(self, columns: Tensor) -> CompressedData:
        """The same for some of the columns."""
        return replace(self, factor=self.factor[:, columns], lengths=self.lengths[columns])


@dataclass(frozen=True)
class Targets:
    """z of k rows, compressed with the data.

    Attributes:
        z: (k, r), Qᵀz.
        rest: (k,), ‖z‖² - ‖Qᵀz‖².
    """

    z: Tensor
    rest: Tensor

    def rows(self, index: Tensor | slice) -> Targets:
        """Those of some rows."""
        return Targets(self.z[index], self.rest[index])


def compress(data: Tensor, target: Tensor) -> tuple[CompressedData, Targets]:
    """M (m, D) and the targets of k rows (k, m), in float64, compressed."""
    m, width = data.shape
    whole = (target * target).sum(1)
    if m <= width:
        return CompressedData.of(data, m), Targets(target, torch.zeros_like(whole))
    factor, z = data.new_zeros(0, width), target.new_zeros(0, len(target))
    for part in range(0, m, _CHUNK * width):
        rows = slice(part, part + _CHUNK * width)
        factor, z = stacked(torch.cat([factor, data[rows]]), torch.cat([z, target[:, rows].T]))
    z = z.T.contiguous()
    return CompressedData.of(factor, m), Targets(z, (whole - (z * z).sum(1)).clamp(min=0))


def stacked(data: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """R (r, D) and Qᵀ target (r, k) of the QR factorisation of data (·, D), for target (·, k)."""
    rank = min(data.shape)
    packed, scales = torch.geqrf(data)
    turned = torch.ormqr(packed, scales, target, left=True, transpose=True)
    return packed[:rank].triu(), turned[:rank]
