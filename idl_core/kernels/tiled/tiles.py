"""Matrix products on tiles of samples that stay in the first-level cache, compiled by numba.

A tile is an array (rows, lanes): features are rows, samples are beside one another in the lanes of
vector registers. At the sizes of an implicit RNN a product takes no longer than a BLAS takes to be
called: compiled loops over tiles have that time for arithmetic.

Importing this module needs numba. What it compiles is cached on disk.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from idl_core.kernels.tiled import ROWS, TILE_BYTES


@intrinsic
def _four_rows(_: Any, W: Any, i: Any, x: Any, d: Any, out: Any, below: Any, slope: Any) -> Any:
    """out[i : i + 4] = d[i : i + 4] + W[:, i : i + 4].T @ x, with all sums in registers.

    Written as a loop it would not be: compilers keep such sums in memory. Unless below and slope
    are None, a sum that is not positive is multiplied by below, and each by its entry of slope.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_data_type(signature.args[0].dtype)
        size = context.get_abi_sizeof(number)
        lanes = TILE_BYTES // size
        vector = ir.VectorType(number, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        lane_0 = ir.Constant(ir.IntType(32), 0)
        all_lane_0 = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        weights, tile, start, result = (
            context.make_array(signature.args[k])(context, builder, arguments[k])
            for k in (0, 2, 3, 4)
        )
        finish = isinstance(slope, types.Array)
        if finish:
            slopes = context.make_array(slope)(context, builder, arguments[6])
            one = ir.Constant(vector, [1.0] * lanes)
            zero = ir.Constant(vector, [0.0] * lanes)
        count, _ = cgutils.unpack_tuple(builder, weights.shape, 2)
        down, along = cgutils.unpack_tuple(builder, weights.strides, 2)
        rows = [builder.add(arguments[1], ir.Constant(count.type, r)) for r in range(ROWS)]

        def pointer(array: Any, row: Any) -> Any:
            offset = builder.mul(row, ir.Constant(count.type, lanes))
            return builder.bitcast(builder.gep(array.data, [offset]), vector.as_pointer())

        def load_row(array: Any, row: Any) -> Any:
            value = builder.load(pointer(array, row))
            value.align = size
            return value

        def spread(value: Any) -> Any:
            single = builder.insert_element(undefined, value, lane_0)
            return builder.shuffle_vector(single, undefined, all_lane_0)

        sums = [cgutils.alloca_once_value(builder, load_row(start, row)) for row in rows]
        with cgutils.for_range(builder, count) as loop:
            x_row = load_row(tile, loop.index)
            base = builder.mul(loop.index, down)
            for row, total in zip(rows, sums, strict=True):
                offset = builder.add(base, builder.mul(row, along))
                weight = builder.load(cgutils.pointer_add(builder, weights.data, offset))
                # "contract" lets a product and a sum become one instruction, and nothing else.
                term = builder.fmul(spread(weight), x_row, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
        for row, total in zip(rows, sums, strict=True):
            value = builder.load(total)
            if finish:
                positive = builder.fcmp_ordered(">", value, zero)
                own = builder.select(positive, one, spread(arguments[5]))
                value = builder.fmul(builder.fmul(value, own), load_row(slopes, row))
                value = builder.fadd(value, zero)  # 0 and not -0
            builder.store(value, pointer(result, row)).align = size
        return context.get_dummy_value()

    return types.void(W, i, x, d, out, below, slope), generate


@njit(nogil=True, cache=True)
def affine(W: Any, x: Any, d: Any, out: Any) -> None:
    """out = Wᵀ x + d, for W (k, n) and the tiles x (≥ k, lanes), d and out (≥ n, lanes).

    n is a multiple of ROWS. Tiles are contiguous; out may be d, not x.
    """
    for i in range(0, W.shape[1], ROWS):
        _four_rows(W, i, x, d, out, None, None)


@njit(nogil=True, cache=True)
def affine_then(W: Any, x: Any, d: Any, below: Any, slope: Any, out: Any) -> None:
    """`affine`, what is not positive then times the number below, and all times slope."""
    for i in range(0, W.shape[1], ROWS):
        _four_rows(W, i, x, d, out, below, slope)


@njit(nogil=True, cache=True)
def load(source: Any, first: int, tile: Any) -> None:
    """tile[i, s] = source[i, first + s], for all rows of source and the samples that there are."""
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


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def largest(x: Any) -> Any:
    """max|x| of a tile; what is not a number does not count."""
    flat = x.ravel()
    result = x.dtype.type(0)
    for i in range(flat.size):
        result = max(result, abs(flat[i]))
    return result
