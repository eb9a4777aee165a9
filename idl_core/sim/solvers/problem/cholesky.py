"""Cholesky factors of matrices that only rounding can have made indefinite."""

from __future__ import annotations

import torch
from torch import Tensor


def cholesky(matrix: Tensor) -> Tensor:
    """Lower factors (..., d, d) of symmetric matrices, of which the lower triangles are read.

    Where rounding has made one indefinite, the factor is that of one with a larger diagonal, by no
    more than it takes; relative to each entry, so that the sizes of rows and columns do not matter.
    The factor of a matrix that has none even so, since it is not finite, is NaN.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    ridge = torch.finfo(matrix.dtype).eps
    while bool(failed.any()):
        if ridge > 1e-3:
            return torch.where((failed > 0)[..., None, None], torch.nan, factor)
        matrix = matrix.clone()
        matrix.diagonal(dim1=-2, dim2=-1).mul_(1 + ridge * (failed > 0).to(matrix.dtype)[..., None])
        factor, failed = torch.linalg.cholesky_ex(matrix)
        ridge *= 10
    return factor
