"""Which tensors' memory compiled code may be given, as an address or a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# Subclasses (DTensor, FakeTensor) and what wraps a tensor may have no memory of their own.
_PLAIN = (Tensor, torch.nn.Parameter)


def addressable(x: Tensor) -> bool:
    """Whether the memory of x holds its numbers: a plain tensor, strided, on a CPU, with no lazy
    sign, not wrapped by functorch, its storage there (FSDP frees that of a sharded parameter)."""
    return (
        type(x) in _PLAIN
        and x.is_cpu
        and x.layout is torch.strided
        and not (x.is_neg() or x.is_conj())
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch._is_functional_tensor(x)
        and not x._is_zerotensor()
        and (x.data_ptr() != 0 or not x.numel())
    )


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
