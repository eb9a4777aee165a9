"""Arrays from addresses, in compiled functions.

In a training step of a small model it takes longer to make a NumPy array of each tensor than to do
the mathematics. A tensor's address is a number.
"""

from __future__ import annotations

from typing import Any

from numba import carray, types
from numba.extending import intrinsic

from idl_core.kernels.numba.programs.compiled import compiled


@intrinsic
def _pointer(_: Any, address: Any, like: Any) -> Any:
    """To numbers of the type of `like`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), generate


@compiled()
def at(address: int, shape: Any, like: Any) -> Any:
    """The contiguous array of that shape, of numbers of the type of `like`; not one of its own."""
    return carray(_pointer(address, like), shape)
