"""Stands in for a Triton program: `launcher[grid](...)` runs its TTIR on tensors of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ttir.compiled import compiled
from ttir.parser import Region, parse
from ttir.run import Pointer, launch

_OPTIONS = ("num_warps", "enable_fp_fusion")
_POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}


class Launcher:
    """Compiles a program as Triton's launcher would for an H100, once for each kind of arguments.

    Attributes:
        name: of the program.
        launches: how many there were.
    """

    def __init__(self, program: Any) -> None:
        self.name: str = program.__name__
        self._program = program
        self._compiled: dict[Any, Region] = {}
        self.launches = 0

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def run(*arguments: Any, **constants: Any) -> None:
            self.launches += 1
            options = {name: constants.pop(name) for name in _OPTIONS}
            given = dict(zip(self._program.arg_names, arguments, strict=False)) | constants
            signature = {name: self._type(name, given[name], constants) for name in given}
            fixed = {name: given[name] for name, kind in signature.items() if kind == "constexpr"}
            key = (tuple(signature.items()), tuple(fixed.items()), tuple(options.items()))
            if key not in self._compiled:
                text = compiled(self._program, signature, fixed, options, 90)
                self._compiled[key] = parse(text, self.name)
            rest = [_argument(value) for name, value in given.items() if name not in fixed]
            launch(self._compiled[key], grid[0], rest)

        return run

    def _type(self, name: str, value: Any, constants: dict[str, Any]) -> str:
        if value is None or name in constants:
            return "constexpr"
        if isinstance(value, Tensor):
            return _POINTERS[value.dtype]
        if isinstance(value, float):
            return "fp32"
        number = self._program.arg_names.index(name)
        # A 1 becomes a constant, as by Triton's own launcher.
        specialised = value == 1 and not self._program.params[number].do_not_specialize
        return "constexpr" if specialised else "i32"


def _argument(value: Any) -> Pointer | int | float:
    """A tensor as its whole memory and where in that it begins: its strides are given beside it."""
    if not isinstance(value, Tensor):
        return value  # type: ignore[no-any-return]
    # NumPy has no bfloat16: its bits.
    dtype = torch.int16 if value.dtype == torch.bfloat16 else value.dtype
    memory = torch.empty(0, dtype=dtype).set_(value.untyped_storage())
    return Pointer(memory.numpy(), value.storage_offset())
