"""Loops over the rows of tiles whose sums and maxima stay in vector registers.

Written as loops they would not: compilers keep them in memory. Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from idl_core.kernels.numba.programs import TILE_BYTES


class Rows:
    """Tiles, given as arguments of an intrinsic, as vectors: a row is one."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        number = context.get_data_type(signature.args[0].dtype)
        self.size = context.get_abi_sizeof(number)
        self.lanes = TILE_BYTES // self.size
        self.vector = ir.VectorType(number, self.lanes)
        self.whole = ir.IntType(8 * self.size)
        self.integers = ir.VectorType(self.whole, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        arrays = [isinstance(kind, types.Array) for kind in signature.args]
        self.tiles: list[Any] = [
            context.make_array(kind)(context, builder, argument) if is_array else None
            for kind, argument, is_array in zip(signature.args, arguments, arrays, strict=True)
        ]
        self.contiguous = [
            not is_array or kind.layout == "C"
            for kind, is_array in zip(signature.args, arrays, strict=True)
        ]

    def count(self) -> Any:
        """Rows of the first tile."""
        return cgutils.unpack_tuple(self.builder, self.tiles[0].shape, 2)[0]

    def number(self, row: int) -> Any:
        return ir.Constant(self.count().type, row)

    def _pointer(self, k: int, row: Any) -> Any:
        stride = ir.Constant(row.type, TILE_BYTES)
        if not self.contiguous[k]:
            stride = cgutils.unpack_tuple(self.builder, self.tiles[k].strides, 2)[0]
        offset = self.builder.mul(row, stride)
        place = cgutils.pointer_add(self.builder, self.tiles[k].data, offset)
        return self.builder.bitcast(place, self.vector.as_pointer())

    def load(self, k: int, row: Any) -> Any:
        value = self.builder.load(self._pointer(k, row))
        value.align = self.size
        return value

    def store(self, value: Any, k: int, row: Any) -> None:
        self.builder.store(value, self._pointer(k, row)).align = self.size

    def magnitude(self, value: Any) -> Any:
        """|value| as an integer: these are in the order of the numbers, infinity and then what is
        no number above all."""
        bits = self.builder.bitcast(value, self.integers)
        mask = (1 << (8 * self.size - 1)) - 1
        return self.builder.and_(bits, ir.Constant(self.integers, [mask] * self.lanes))

    def total(self) -> Any:
        """A sum, or a maximum of magnitudes, to be."""
        return cgutils.alloca_once_value(self.builder, self.zero)

    def add(self, total: Any, left: Any, right: Any) -> None:
        """total += left * right"""
        term = self.builder.fmul(left, right, flags=("contract",))
        new = self.builder.fadd(self.builder.load(total), term, flags=("contract",))
        self.builder.store(new, total)

    def raise_to(self, total: Any, value: Any) -> None:
        """total = max(total, |value|)"""
        builder, new = self.builder, self.magnitude(value)
        old = builder.bitcast(builder.load(total), self.integers)
        larger = builder.select(builder.icmp_signed(">", new, old), new, old)
        builder.store(builder.bitcast(larger, self.vector), total)


def _loop(body: Callable[[Rows], None]) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        body(Rows(context, builder, signature, arguments))
        return context.get_dummy_value()

    return generate


@intrinsic
def look(_: Any, x: Any, before: Any, looks: Any) -> Any:
    """looks (2, lanes) = max|x - before| and max|x| of each sample of a tile; what is not a number
    counts as the largest."""

    def body(rows: Rows) -> None:
        change, size = rows.total(), rows.total()
        with cgutils.for_range(rows.builder, rows.count()) as loop:
            new = rows.load(0, loop.index)
            rows.raise_to(change, rows.builder.fsub(new, rows.load(1, loop.index)))
            rows.raise_to(size, new)
        for row, total in enumerate((change, size)):
            rows.store(rows.builder.load(total), 2, rows.number(row))

    return types.void(x, before, looks), _loop(body)


@intrinsic
def residuals_and_products(_: Any, x: Any, image: Any, r1: Any, r2: Any, found: Any) -> Any:
    """r2 = r0 = image - x, and of each sample found (6, lanes) = <r1 - r2, r0 - r1>,
    |r0 - r1|², <r1 - r2, r0>, <r0 - r1, r0>, max|r0| and max|image|."""

    def body(rows: Rows) -> None:
        builder = rows.builder
        totals = old_new, new_new, old_r, new_r, residual, size = [rows.total() for _ in range(6)]
        with cgutils.for_range(builder, rows.count()) as loop:
            g0, older = rows.load(1, loop.index), rows.load(2, loop.index)
            r0 = builder.fsub(g0, rows.load(0, loop.index))
            old, new = builder.fsub(older, rows.load(3, loop.index)), builder.fsub(r0, older)
            rows.store(r0, 3, loop.index)
            rows.add(old_new, old, new)
            rows.add(new_new, new, new)
            rows.add(old_r, old, r0)
            rows.add(new_r, new, r0)
            rows.raise_to(residual, r0)
            rows.raise_to(size, g0)
        for row, total in enumerate(totals):
            rows.store(builder.load(total), 4, rows.number(row))

    return types.void(x, image, r1, r2, found), _loop(body)


@intrinsic
def combine(_: Any, x: Any, g0: Any, g1: Any, g2: Any, weights: Any) -> Any:
    """x = g0 - w (g0 - g1) - v (g1 - g2) for weights (3, lanes) of each sample: w, v, and whether x
    is to change at all."""

    def body(rows: Rows) -> None:
        builder = rows.builder
        w, v, going = (rows.load(4, rows.number(row)) for row in range(3))
        goes = builder.fcmp_ordered(">", going, rows.zero)
        with cgutils.for_range(builder, rows.count()) as loop:
            old, new0, new1, new2 = (rows.load(k, loop.index) for k in range(4))
            step = builder.fmul(w, builder.fsub(new0, new1), flags=("contract",))
            value = builder.fsub(new0, step, flags=("contract",))
            step = builder.fmul(v, builder.fsub(new1, new2), flags=("contract",))
            value = builder.fsub(value, step, flags=("contract",))
            rows.store(builder.select(goes, value, old), 0, loop.index)

    return types.void(x, g0, g1, g2, weights), _loop(body)
