"""What each operation of TTIR computes, in NumPy.

A value is a NumPy scalar or array of the type that the text says; a pointer is an int64 address,
and a bfloat16 is the float32 of its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ttir.parser import Operation

Value = Any  # np.generic | np.ndarray

_TYPES = {
    "i1": np.dtype(bool), "i8": np.dtype(np.int8), "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32), "i64": np.dtype(np.int64), "index": np.dtype(np.int64),
    "f16": np.dtype(np.float16), "bf16": np.dtype(np.float32),
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64),
}  # fmt: skip
_COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "slt": np.less, "sle": np.less_equal,
    "sgt": np.greater, "sge": np.greater_equal,
    "oeq": np.equal, "olt": np.less, "ole": np.less_equal, "ogt": np.greater,
    "oge": np.greater_equal, "une": np.not_equal,
}  # fmt: skip


def shape_and_dtype(kind: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Of "f32", "tensor<8x16xf32>", "!tt.ptr<f32>" or "tensor<8x!tt.ptr<f32>>"."""
    kind = kind.strip()
    shape: tuple[int, ...] = ()
    if found := re.fullmatch(r"tensor<((?:\d+x)+)(.+)>", kind):
        shape = tuple(int(size) for size in found[1].rstrip("x").split("x"))
        kind = found[2]
    if kind.startswith("!tt.ptr<"):
        return shape, np.dtype(np.int64)
    return shape, _TYPES[kind]


def pointee(kind: str) -> np.dtype[Any]:
    """How what a pointer type points at is in memory: a bfloat16 as an int16."""
    name = re.search(r"!tt\.ptr<(\w+)>", kind)[1]  # type: ignore[index]
    return np.dtype(np.int16) if name == "bf16" else _TYPES[name]


def _result(kind: str) -> str:
    """The type of the result of "a -> b", "a to b" or "a"."""
    return re.split(r" -> | to ", kind)[-1]


def _filled(value: Value, kind: str) -> Value:
    shape, dtype = shape_and_dtype(kind)
    return np.full(shape, value, dtype) if shape else dtype.type(value)


def _constant(operation: Operation) -> Value:
    literal = operation.text.strip().removeprefix("dense<").removesuffix(">")
    literal = re.sub(r"^\{.*?\} ", "", literal)
    _, dtype = shape_and_dtype(operation.type or "i1")
    if literal in ("true", "false"):
        return _filled(literal == "true", operation.type or "i1")
    if dtype.kind == "f" and literal.startswith("0x"):
        bits = np.array(int(literal, 16), f"u{dtype.itemsize}")
        return _filled(bits.view(dtype)[()], operation.type)
    return _filled(float(literal) if dtype.kind == "f" else int(literal), operation.type)


def _poison(operation: Operation) -> Value:
    """A value that nothing may depend on."""
    dtype = shape_and_dtype(operation.type)[1]
    return _filled(np.nan if dtype.kind == "f" else dtype.type(77), operation.type)


def _range(operation: Operation) -> Value:
    end, start = (int(re.search(rf"{n} = (\d+)", operation.text)[1]) for n in ("end", "start"))  # type: ignore[index]
    return np.arange(start, end, dtype=np.int32)


def _compared(operation: Operation, a: Value, b: Value) -> Value:
    predicate = operation.text.split()[0].rstrip(",")
    return _COMPARISONS[predicate](a, b)


def _converted(operation: Operation, a: Value) -> Value:
    return a.astype(shape_and_dtype(_result(operation.type))[1])


def _narrowed(operation: Operation, a: Value) -> Value:
    if _result(operation.type).endswith(("bf16", "bf16>")):
        raise NotImplementedError("rounding to bfloat16")
    return _converted(operation, a)


def _reinterpreted(operation: Operation, a: Value) -> Value:
    return np.asarray(a).view(shape_and_dtype(_result(operation.type))[1])[()]


def _splat(operation: Operation, a: Value) -> Value:
    return np.full(shape_and_dtype(_result(operation.type))[0], a)


def _broadcast(operation: Operation, a: Value) -> Value:
    return np.broadcast_to(a, shape_and_dtype(_result(operation.type))[0])


def _expanded(operation: Operation, a: Value) -> Value:
    return np.expand_dims(a, int(re.search(r"axis = (\d+)", operation.text)[1]))  # type: ignore[index]


def _reshaped(operation: Operation, a: Value) -> Value:
    return np.reshape(a, shape_and_dtype(_result(operation.type))[0])


def _transposed(operation: Operation, a: Value) -> Value:
    order = re.search(r"order = array<i32: ([\d, ]+)>", operation.text)[1]  # type: ignore[index]
    return np.transpose(a, [int(axis) for axis in order.split(",")])


def _moved(operation: Operation, pointer: Value, offset: Value) -> Value:
    size = pointee(operation.type).itemsize
    return pointer + np.asarray(offset).astype(np.int64) * size


def _product(operation: Operation, a: Value, b: Value, c: Value) -> Value:
    return a @ b + c


def _remainder(_: Operation, a: Value, b: Value) -> Value:
    """Of a division that rounds towards zero."""
    return np.fmod(a, b)


def _quotient(_: Operation, a: Value, b: Value) -> Value:
    return np.trunc(np.true_divide(a, b)).astype(a.dtype)


def _plain(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda _, *values: function(*values)


def _fused(_: Operation, a: Value, b: Value, c: Value) -> Value:
    exact = np.asarray(a, np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)
    return exact.astype(a.dtype)


# Of (operation, *operands); what touches memory or has regions is in `run`.
COMPUTED: dict[str, Callable[..., Value]] = {
    "arith.constant": _constant,
    "ub.poison": _poison,
    "tt.make_range": _range,
    "arith.cmpi": _compared,
    "arith.cmpf": _compared,
    "arith.select": _plain(np.where),
    "arith.index_cast": _converted,
    "arith.extsi": _converted,
    "arith.extui": _converted,
    "arith.trunci": _converted,
    "arith.extf": _converted,
    "arith.truncf": _narrowed,
    "arith.sitofp": _converted,
    "arith.fptosi": _converted,
    "arith.bitcast": _reinterpreted,
    "tt.bitcast": _reinterpreted,
    "tt.splat": _splat,
    "tt.broadcast": _broadcast,
    "tt.expand_dims": _expanded,
    "tt.reshape": _reshaped,
    "tt.trans": _transposed,
    "tt.addptr": _moved,
    "tt.dot": _product,
    "arith.divsi": _quotient,
    "arith.remsi": _remainder,
    "math.fma": _fused,
}
COMPUTED |= {
    name: _plain(function)
    for name, function in {
        "arith.addf": np.add, "arith.addi": np.add,
        "arith.subf": np.subtract, "arith.subi": np.subtract,
        "arith.mulf": np.multiply, "arith.muli": np.multiply,
        "arith.divf": np.divide, "arith.negf": np.negative,
        "arith.andi": np.bitwise_and, "arith.ori": np.bitwise_or, "arith.xori": np.bitwise_xor,
        "arith.maxsi": np.maximum, "arith.minsi": np.minimum,
        # The first of each pair passes over a NaN, the second hands it on.
        "arith.maxnumf": np.fmax, "arith.maximumf": np.maximum,
        "arith.minnumf": np.fmin, "arith.minimumf": np.minimum,
        "math.absf": np.abs, "math.absi": np.abs, "math.exp": np.exp, "math.exp2": np.exp2,
        "math.log": np.log, "math.sqrt": np.sqrt,
    }.items()
}  # fmt: skip
