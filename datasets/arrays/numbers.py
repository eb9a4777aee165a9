"""Arrays of numbers as tensors; a number that is none is named with its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError


def floats(path: Path, name: str, array: np.ndarray, kind: type[np.floating[Any]]) -> Tensor:
    """The array `name` as a tensor of `kind`. Raises DatasetError where float32 cannot hold it."""
    with np.errstate(over="ignore"):  # found just below, and named
        narrow = np.asarray(array, dtype=np.float32)
    finite = np.isfinite(narrow).reshape(len(narrow), -1).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        if np.isfinite(array[row]).all():
            what = "a number too large for float32"
        else:
            what = "NaN" if np.isnan(array[row]).any() else "an infinite number"
        raise DatasetError(
            f"{path}: {name} holds {what} in row {row} (of {int((~finite).sum()):,} such rows): "
            "remove or replace it."
        )
    return torch.from_numpy(np.ascontiguousarray(narrow if kind is np.float32 else array, kind))
