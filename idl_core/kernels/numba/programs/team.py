"""Compiled functions run by the OpenMP threads of torch.

Threads of one's own would compete with those, which keep their processors busy for a while after
each operation of torch, waiting for the next.

Importing this module needs numba, and a torch whose OpenMP has GNU's interface.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch  # noqa: F401  its OpenMP is the one that is looked for
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
_process = ctypes.CDLL(None)
for _name in _SYMBOLS:
    try:
        _address = ctypes.cast(getattr(_process, _name), ctypes.c_void_p).value
    except AttributeError as error:
        raise ImportError(f"torch's OpenMP has no {_name} here") from error
    binding.add_symbol(_name, _address)


@intrinsic
def in_team(typing_context: Any, function: Any, arguments: Any, threads: Any) -> Any:
    """Call the compiled function(*arguments, number, of) in each of `threads` threads.

    number is the thread's, from 0, and `of` how many there are. The function raises nothing.
    """
    called = function.get_call_type(typing_context, (*arguments, types.intp, types.intp), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        module, integer, address = builder.module, ir.IntType(32), ir.IntType(8).as_pointer()
        compiled = function.dispatcher.get_compile_result(called)
        context.add_linking_libs((compiled.library,))
        body_type = ir.FunctionType(ir.VoidType(), [address])
        body = ir.Function(module, body_type, module.get_unique_name("in_team"))
        body.linkage = "internal"

        inside = ir.IRBuilder(body.append_basic_block())
        packed = inside.load(inside.bitcast(body.args[0], values[1].type.as_pointer()))
        place = [
            inside.sext(
                inside.call(_declared(module, name, integer, []), []),
                context.get_value_type(types.intp),
            )
            for name in _SYMBOLS[1:]
        ]
        own = [*cgutils.unpack_tuple(inside, packed, len(arguments)), *place]
        context.call_internal_no_propagate(inside, compiled.fndesc, called, own)
        inside.ret_void()

        start = _declared(
            module, _SYMBOLS[0], ir.VoidType(), [body_type.as_pointer(), address, integer, integer]
        )
        shared = cgutils.alloca_once_value(builder, values[1])
        count = builder.trunc(values[2], integer)
        builder.call(start, [body, builder.bitcast(shared, address), count, integer(0)])
        return context.get_dummy_value()

    return types.void(function, arguments, threads), generate


def _declared(module: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)
