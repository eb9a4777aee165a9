"""Whether a matrix is within a ball of ‖A‖∞, in one pass over it."""

from __future__ import annotations

from torch import Tensor

from idl_core.kernels.numba.memory import addressable, is_watched
from idl_core.kernels.numba.support import NUMBERS, programs, why_not


def rows_within(A: Tensor, radius: float) -> bool:
    """Whether no row of A sums up to more in magnitude; False too where it is not known here."""
    number = NUMBERS.get(A.dtype)
    if number is None or not addressable(A) or is_watched() or why_not() is not None:
        return False
    rows, columns = A.shape
    if A.is_contiguous():
        return bool(programs().norm.rows_within(A.data_ptr(), (rows, columns), radius, number(0)))
    if A.T.is_contiguous():
        within = programs().norm.columns_within
        return bool(within(A.data_ptr(), (columns, rows), radius, number(0)))
    return False
