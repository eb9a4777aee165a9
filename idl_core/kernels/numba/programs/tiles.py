"""Matrix products on tiles of samples that stay in the first-level cache, compiled by numba.

A tile is an array (rows, lanes): features are rows, samples are beside one another in the lanes of
vector registers. At the sizes of an implicit RNN a product takes no longer than a BLAS takes to be
called: compiled loops over tiles have that time for arithmetic.

Importing this module needs numba. What it compiles is cached on disk.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from idl_core.kernels.numba.programs import ROWS, TILE_BYTES
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.team import in_team

# Features that are turned into rows of a tile together, while those are in the first-level cache.
_TURNED = 128
# Rows and columns that are turned together.
_BLOCK = 32


@intrinsic
def _four_rows(_: Any, W: Any, i: Any, x: Any, d: Any, out: Any, below: Any, slope: Any) -> Any:
    """out[i : i + 4] = d[i : i + 4] + W[:, i : i + 4].T @ x, with all sums in registers.

    Written as a loop it would not be: compilers keep such sums in memory. d may be None, for zeros.
    Unless below and slope are None, a sum that is not positive is multiplied by below, and each by
    its entry of slope. x, d, out and slope are tiles, or as many columns of any array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_data_type(signature.args[0].dtype)
        size = context.get_abi_sizeof(number)
        lanes = TILE_BYTES // size
        vector = ir.VectorType(number, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        lane_0 = ir.Constant(ir.IntType(32), 0)
        all_lane_0 = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        arrays = {
            k: context.make_array(kind)(context, builder, arguments[k])
            for k, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }
        weights = arrays[0]
        zero, one = (ir.Constant(vector, [value] * lanes) for value in (0.0, 1.0))
        count, width = cgutils.unpack_tuple(builder, weights.shape, 2)
        down, along = cgutils.unpack_tuple(builder, weights.strides, 2)
        rows = [builder.add(arguments[1], ir.Constant(count.type, r)) for r in range(ROWS)]
        # Rows that fill the last four up are as the last one.
        last = builder.sub(width, ir.Constant(count.type, 1))
        columns = [
            builder.mul(builder.select(builder.icmp_signed("<", row, last), row, last), along)
            for row in rows
        ]

        def pointer(k: int, row: Any) -> Any:
            stride = ir.Constant(count.type, TILE_BYTES)
            if signature.args[k].layout != "C":
                stride = cgutils.unpack_tuple(builder, arrays[k].strides, 2)[0]
            place = cgutils.pointer_add(builder, arrays[k].data, builder.mul(row, stride))
            return builder.bitcast(place, vector.as_pointer())

        def load_row(k: int, row: Any) -> Any:
            value = builder.load(pointer(k, row))
            value.align = size
            return value

        def spread(value: Any) -> Any:
            single = builder.insert_element(undefined, value, lane_0)
            return builder.shuffle_vector(single, undefined, all_lane_0)

        starts = [load_row(3, row) if 3 in arrays else zero for row in rows]
        sums = [cgutils.alloca_once_value(builder, start) for start in starts]
        with cgutils.for_range(builder, count) as loop:
            x_row = load_row(2, loop.index)
            base = builder.mul(loop.index, down)
            for column, total in zip(columns, sums, strict=True):
                offset = builder.add(base, column)
                weight = builder.load(cgutils.pointer_add(builder, weights.data, offset))
                # "contract" lets a product and a sum become one instruction, and nothing else.
                term = builder.fmul(spread(weight), x_row, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
        for row, total in zip(rows, sums, strict=True):
            value = builder.load(total)
            if 6 in arrays:
                positive = builder.fcmp_ordered(">", value, zero)
                own = builder.select(positive, one, spread(arguments[5]))
                value = builder.fmul(builder.fmul(value, own), load_row(6, row))
                value = builder.fadd(value, zero)  # 0 and not -0
            builder.store(value, pointer(4, row)).align = size
        return context.get_dummy_value()

    return types.void(W, i, x, d, out, below, slope), generate


@compiled()
def filled(n: int) -> int:
    """n rounded up to a multiple of ROWS: the rows that a tile of n rows needs for a result."""
    return -(-n // ROWS) * ROWS


@compiled()
def strided(W: Any) -> Any:
    """W itself. Matrices by rows and by columns are of one type with it, and what takes them is
    compiled once; products take no longer."""
    return W[::1, ::1]


@compiled()
def is_turned_once(n: int, tiles: int, threads: int) -> bool:
    """Whether a matrix (n, n) whose columns are summed up over its rows is better turned before all
    iterations of so many tiles.

    In GFlop/s of one thread, by rows against by columns: 104 and 94 at n = 300, 104 and 84 at 1000;
    102 and 41 at 1024, where the entries of a column fall on one another in the caches. To turn it
    takes as long as some iterations of a tile.
    """
    return n >= 512 and (tiles > threads or n % 256 == 0)


@compiled()
def turn(A: Any, threads: int) -> Any:
    """A copy of Aᵀ by rows."""
    turned = np.empty(A.shape[::-1], A.dtype)
    in_team(_turn_rows, (A, turned), threads)
    return turned


@compiled()
def _turn_rows(A: Any, turned: Any, number: int, of: int) -> None:
    """turned = Aᵀ, in blocks that stay in the first-level cache."""
    rows, columns = turned.shape
    for first in range(number * _BLOCK, rows, of * _BLOCK):
        for left in range(0, columns, _BLOCK):
            for i in range(first, min(first + _BLOCK, rows)):
                for j in range(left, min(left + _BLOCK, columns)):
                    turned[i, j] = A[j, i]


@compiled()
def affine(W: Any, x: Any, d: Any, out: Any) -> None:
    """out = Wᵀ x + d, for W (k, n) and the tiles x (≥ k, lanes), d and out (≥ filled(n), lanes).

    Tiles are contiguous; out may be d, not x. W's last column fills the rows of out up.
    """
    for i in range(0, W.shape[1], ROWS):
        _four_rows(W, i, x, d, out, None, None)


@compiled()
def add_product(W: Any, x: Any, first: int, last: int, out: Any) -> None:
    """out[first:last] += (Wᵀ x)[first:last], for multiples first and last of ROWS, as `affine`.

    out may also be columns of any array, as many as of a tile.
    """
    for i in range(first, last, ROWS):
        _four_rows(W, i, x, out, out, None, None)


@compiled()
def product(W: Any, x: Any, first: int, last: int, out: Any) -> None:
    """out[first:last] = (Wᵀ x)[first:last], likewise."""
    for i in range(first, last, ROWS):
        _four_rows(W, i, x, None, out, None, None)


@compiled()
def affine_then(W: Any, x: Any, d: Any, below: Any, slope: Any, out: Any) -> None:
    """`affine`, what is not positive then times the number below, and all times slope."""
    for i in range(0, W.shape[1], ROWS):
        _four_rows(W, i, x, d, out, below, slope)


@compiled()
def copy(source: Any, target: Any, n: int) -> None:
    """The first n entries, in memory, of an array into another. What numba makes of an assignment
    of arrays takes long to be compiled: it can say in words what does not fit."""
    given, found = source.ravel(), target.ravel()
    for i in range(n):
        found[i] = given[i]


@compiled()
def load(source: Any, first: int, tile: Any) -> None:
    """tile[i, s] = source[i, first + s], for all rows of source; 0 where there is no sample."""
    lanes = TILE_BYTES // tile.itemsize  # known to the compiler, unlike the tile's shape
    count = min(lanes, source.shape[1] - first)
    for i in range(source.shape[0]):
        row, own = source[i, first : first + count], tile[i]
        if count == lanes:
            for s in range(lanes):
                own[s] = row[s]
        else:
            for s in range(count):
                own[s] = row[s]
            for s in range(count, lanes):
                own[s] = 0


@compiled()
def store(tile: Any, target: Any, first: int) -> None:
    """target[i, first + s] = tile[i, s], for all rows of target and the samples that there are."""
    lanes = TILE_BYTES // tile.itemsize
    count = min(lanes, target.shape[1] - first)
    for i in range(target.shape[0]):
        row, own = target[i, first : first + count], tile[i]
        if count == lanes:
            for s in range(lanes):
                row[s] = own[s]
        else:
            for s in range(count):
                row[s] = own[s]


@compiled()
def load_samples(source: Any, first: int, tile: Any) -> None:
    """tile[i, s] = source[first + s, i], for all features; 0 where there is no such sample."""
    lanes = TILE_BYTES // tile.itemsize
    count = min(lanes, source.shape[0] - first)
    if count < lanes:
        tile[:, count:] = 0
    for start in range(0, source.shape[1], _TURNED):
        for s in range(count):
            sample, block = source[first + s, start : start + _TURNED], tile[start:]
            for i in range(sample.size):
                block[i, s] = sample[i]


@compiled()
def store_samples(tile: Any, target: Any, first: int) -> None:
    """target[first + s, i] = tile[i, s], for all features and the samples that there are."""
    for start in range(0, target.shape[1], _TURNED):
        for s in range(min(TILE_BYTES // tile.itemsize, target.shape[0] - first)):
            sample, block = target[first + s, start : start + _TURNED], tile[start:]
            for i in range(sample.size):
                sample[i] = block[i, s]


@compiled()
def largest(x: Any) -> Any:
    """max|x| of a tile; what is not finite does not count."""
    flat, nothing = x.ravel(), x.dtype.type(0)
    result = nothing
    for i in range(flat.size):
        size = abs(flat[i])
        result = max(result, size if size < inf else nothing)
    return result
