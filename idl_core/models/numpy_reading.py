"""Lets NumPy, and with it SciPy and Matplotlib, read a parameter although it requires a gradient.

    scipy.sparse.bmat([[model.C, model.D], [model.A, model.B]])

The parameter stays of torch's own class, which optimisers and compiled kernels look for.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import nn

_NO_NUMPY = (torch.bfloat16,)


def let_numpy_read(module: nn.Module) -> None:
    """Give each parameter of the module, not of its children, what NumPy asks for."""
    for parameter in module.parameters(recurse=False):
        # NumPy looks for this on the object itself; pickle, for what is beside a tensor's numbers.
        vars(parameter).update(__array__=_Reader(parameter), __getstate__=_nothing)


class _Reader:
    """`__array__` of a parameter: its numbers, without its gradient."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter = weakref.ref(parameter)  # it is kept by the parameter

    def __call__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        parameter = self._parameter()
        assert parameter is not None
        numbers = parameter.detach().cpu()
        array = (numbers.float() if numbers.dtype in _NO_NUMPY else numbers).numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array


def _nothing() -> None:
    """What is pickled of a parameter beside its numbers."""
