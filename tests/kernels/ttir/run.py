"""Launches a parsed program: programs of the grid one after the other, on NumPy arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttir.operations import COMPUTED, Value, pointee, shape_and_dtype
from ttir.parser import Operation, Region

# Buffers are this far apart in the address space, so that an address tells its buffer.
_APART = 1 << 40
_TERMINATORS = ("scf.yield", "scf.condition", "tt.reduce.return", "tt.return")
_NOTHING = ("gpu.barrier", "ttg.barrier", "llvm.intr.assume")


class OutOfBounds(Exception):
    """A load or store outside the buffers, or of one that it does not begin in."""


@dataclass(frozen=True)
class Pointer:
    """Where an argument points: into a flat array, `offset` numbers from its first."""

    array: np.ndarray[Any, Any]
    offset: int = 0


def launch(program: Region, grid: int, arguments: Sequence[Pointer | int | float]) -> None:
    """Run `grid` programs; what pointers point at is written in place."""
    memory = _Memory()
    given = [memory.add(a) if isinstance(a, Pointer) else _number(a) for a in arguments]
    for number in range(grid):
        values = dict(zip(program.arguments, given, strict=True))
        # What overflows or is not a number is as much a result as any other.
        with np.errstate(all="ignore"):
            _Program(memory, number).run(program, values)


def _number(value: float) -> Value:
    return np.float32(value) if isinstance(value, float) else np.int32(value)


class _Memory:
    """The arrays that a program was given, as one address space."""

    def __init__(self) -> None:
        self._buffers: list[np.ndarray[Any, Any]] = []

    def add(self, pointer: Pointer) -> np.int64:
        """Its address."""
        self._buffers.append(pointer.array)
        return np.int64(len(self._buffers) * _APART + pointer.offset * pointer.array.itemsize)

    def find(
        self, address: Value, dtype: np.dtype[Any], mask: Value | None
    ) -> tuple[np.ndarray[Any, Any], Value, Value]:
        """The buffer, positions in it (0 where masked), and the mask."""
        address = np.asarray(address)
        mask = np.broadcast_to(True if mask is None else mask, address.shape)
        if not mask.any():
            return np.zeros(1, dtype), np.zeros(address.shape, np.int64), mask
        number, offset = np.divmod(np.where(mask, address, address[mask].flat[0]), _APART)
        position, rest = np.divmod(offset, dtype.itemsize)
        if np.ptp(number) or not 1 <= number.flat[0] <= len(self._buffers) or rest.any():
            raise OutOfBounds(f"no buffer is at these addresses: {np.unique(number)}")
        buffer = self._buffers[int(number.flat[0]) - 1]
        if buffer.dtype != dtype or position.min() < 0 or position.max() >= buffer.size:
            raise OutOfBounds(f"{position.min()} to {position.max()} of {buffer.size} numbers")
        return buffer, position, mask


class _Program:
    """One program of a grid."""

    def __init__(self, memory: _Memory, number: int) -> None:
        self.memory, self.number = memory, number

    def run(self, region: Region, values: dict[str, Value]) -> list[Value]:
        """Run a region on the values known so far; what its terminator hands over."""
        for operation in region.operations:
            operands = [values[name] for name in operation.operands]
            if operation.name in _TERMINATORS:
                return operands
            found = self._one(operation, operands, values)
            values.update(zip(operation.results, found, strict=True))
        return []

    def _one(
        self, operation: Operation, operands: list[Value], values: dict[str, Value]
    ) -> list[Value]:
        name = operation.name
        if name in COMPUTED:
            found = COMPUTED[name](operation, *operands)
            _check(operation, found)
            return [found]
        if name in _NOTHING:
            return []
        match name:
            case "tt.get_program_id":
                return [np.int32(self.number if operation.text.strip() == "x" else 0)]
            case "tt.load":
                return [self._load(operation, *operands)]
            case "tt.store":
                return self._store(operation, *operands)
            case "tt.reduce":
                return self._reduce(operation, operands, values)
            case "scf.for":
                return self._for(operation, operands, values)
            case "scf.while":
                return self._while(operation, operands, values)
            case "scf.if":
                region = operation.regions[0 if operands[0] else 1 :][:1]
                return self.run(region[0], dict(values)) if region else []
        raise NotImplementedError(f"{name} is not known: add it to tests/kernels/ttir")

    def _load(
        self, operation: Operation, address: Value, mask: Value = None, other: Value = 0
    ) -> Value:
        buffer, position, mask = self.memory.find(address, pointee(operation.type), mask)
        found = buffer[position]
        if "<bf16>" in operation.type:  # the upper half of a float32
            found = (found.astype(np.int32) << 16).view(np.float32)
        return np.where(mask, found, np.asarray(other, found.dtype))

    def _store(
        self, operation: Operation, address: Value, value: Value, mask: Value = None
    ) -> list[Value]:
        if "<bf16>" in operation.type:
            raise NotImplementedError("storing a bfloat16")
        buffer, position, mask = self.memory.find(address, pointee(operation.type), mask)
        buffer[position[mask]] = np.broadcast_to(value, mask.shape)[mask]
        return []

    def _reduce(
        self, operation: Operation, operands: list[Value], values: dict[str, Value]
    ) -> list[Value]:
        """By halves, as a tree: sizes are powers of two."""
        axis = int(re.search(r"axis = (\d+)", operation.text)[1])  # type: ignore[index]
        (region,) = operation.regions
        while (size := operands[0].shape[axis]) > 1:
            low = [np.take(one, range(size // 2), axis) for one in operands]
            high = [np.take(one, range(size // 2, size), axis) for one in operands]
            known = values | dict(zip(region.arguments, low + high, strict=True))
            operands = self.run(region, known)
        return [np.take(one, 0, axis) for one in operands]

    def _for(
        self, operation: Operation, operands: list[Value], values: dict[str, Value]
    ) -> list[Value]:
        first, end, step, *carried = operands
        (body,) = operation.regions
        for counter in range(int(first), int(end), int(step)):
            known = [first.dtype.type(counter), *carried]
            carried = self.run(body, values | dict(zip(body.arguments, known, strict=True)))
        return carried

    def _while(
        self, operation: Operation, carried: list[Value], values: dict[str, Value]
    ) -> list[Value]:
        condition, body = operation.regions
        while True:
            known = values | dict(zip(condition.arguments, carried, strict=True))
            goes_on, *carried = self.run(condition, known)
            if not goes_on:
                return carried
            carried = self.run(body, values | dict(zip(body.arguments, carried, strict=True)))


def _check(operation: Operation, found: Value) -> None:
    """That a value is of the type that the text says: an operation misread would show here."""
    if operation.name in ("tt.addptr", "arith.select", "arith.cmpi", "arith.cmpf"):
        return  # their text ends in the type of an operand
    kind = re.split(r" -> | to ", operation.type)[-1] or "i1"
    shape, dtype = shape_and_dtype(kind)
    # A reduction's region speaks of single numbers, and is given many.
    if (shape and np.shape(found) != shape) or found.dtype != dtype:
        raise TypeError(f"{operation} gave {np.shape(found)} {found.dtype}")
