"""Which tensors' memory compiled code may be given, as an address or a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# Subclasses (DTensor, FakeTensor) may have no memory of their own.
_PLAIN = (Tensor, torch.nn.Parameter)


def _keys(x: Tensor) -> int:
    """What torch dispatches an operation on x by: there is one for each kind of tensor (on a GPU,
    meta, sparse, wrapped by functorch, functional) and each lazy operation (conjugate, sign)."""
    return torch._C._dispatch_keys(x).raw_repr()


with torch.inference_mode():
    _OF_INFERENCE = _keys(torch.empty(0))
_USUAL = frozenset((_keys(torch.empty(0)), _OF_INFERENCE))


def addressable(x: Tensor) -> bool:
    """Whether the memory of x holds its numbers: a plain tensor, strided, on a CPU, with nothing
    lazy or wrapped about it, its storage there (FSDP frees that of a sharded parameter)."""
    return type(x) in _PLAIN and _keys(x) in _USUAL and (x.data_ptr() != 0 or not x.numel())


def is_watched() -> bool:
    """Whether something looks at each operation of torch, or takes its place: a dispatch mode
    (FakeTensorMode, MemTracker, a counter of flops), a trace. Compiled code would hide from it."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None


def array(x: Tensor) -> np.ndarray:
    """The numbers of an addressable tensor, contiguous.

    Not by x.numpy(), after which torch lets nobody resize the memory, as FSDP does with that of
    parameters.
    """
    return np.asarray(_Memory(x.detach().contiguous()))


class _Memory:
    """The memory of a contiguous tensor, which it keeps, in NumPy's protocol."""

    def __init__(self, x: Tensor) -> None:
        self._kept = x
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": tuple(x.shape),
            "typestr": "<f4" if x.dtype == torch.float32 else "<f8",
            "data": (x.data_ptr() or _NOWHERE, False),
        }


_NOWHERE = 64  # for no numbers: NumPy takes 0 for no memory
