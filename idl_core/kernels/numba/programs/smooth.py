"""Smooth activations of tiles in float32, by vectors: a library's are called for single numbers.

exp, tanh and erf to a few units in the last place: the polynomials of Cephes (Moshier, 1992) for
the first two, the rational approximation of Eigen for erf. In float64 nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import e, log2, pi, sqrt
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from idl_core.kernels.numba.programs import SMOOTH
from idl_core.kernels.numba.programs.compiled import compiled
from idl_core.kernels.numba.programs.vectors import Rows

# ln 2 in two parts, the first of few digits.
_LN2 = (0.693359375, -2.12194440e-4)
# (exp(r) - 1 - r) / r²
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
# (tanh(x) - x) / x³ for |x| < 0.625, of x²
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -0.333332819422)
# erf(x) / x within ±4, of x²: numerator and denominator
_ERF = (
    (
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ),
    (
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    ),
)


class _Maths:
    """Functions of vectors."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.builder = rows, rows.builder

    def number(self, value: float) -> Any:
        return ir.Constant(self.rows.vector, [value] * self.rows.lanes)

    def sum(self, x: Any, y: Any) -> Any:
        return self.builder.fadd(x, y, flags=("contract",))

    def product(self, x: Any, y: Any) -> Any:
        return self.builder.fmul(x, y, flags=("contract",))

    def polynomial(self, coefficients: tuple[float, ...], x: Any) -> Any:
        """By Horner, the coefficient of the highest power first."""
        total = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            total = self.sum(self.product(total, x), self.number(coefficient))
        return total

    def within(self, x: Any, bound: float) -> Any:
        """x cut down to ±bound; what is not a number stays."""
        for sign, value in ((">", bound), ("<", -bound)):
            beyond = self.builder.fcmp_ordered(sign, x, self.number(value))
            x = self.builder.select(beyond, self.number(value), x)
        return x

    def exp(self, x: Any) -> Any:
        """Of what is beyond ±87, that of ±87."""
        builder, rows = self.builder, self.rows
        x = self.within(x, 87.0)
        # Numbers of this size are whole: a sum with one is rounded to whole numbers.
        large = self.number(1.5 * 2**23)
        power = builder.fsub(builder.fadd(builder.fmul(x, self.number(log2(e))), large), large)
        r = x
        for part in _LN2:
            r = self.sum(r, self.product(power, self.number(-part)))
        value = self.product(self.polynomial(_EXP, r), self.product(r, r))
        value = self.sum(self.sum(value, r), self.number(1.0))
        # A number that is none is no power either: whatever is made of it, the value stays none.
        finite = builder.fcmp_ordered("ord", power, power)
        whole = builder.fptosi(builder.select(finite, power, rows.zero), rows.integers)
        bias, places = (ir.Constant(rows.integers, [k] * rows.lanes) for k in (127, 23))
        exponent = builder.shl(builder.add(whole, bias), places)
        return self.product(value, builder.bitcast(exponent, rows.vector))

    def sigmoid(self, x: Any) -> Any:
        below = self.exp(self.builder.fsub(self.rows.zero, x))
        return self.builder.fdiv(self.number(1.0), self.sum(below, self.number(1.0)))

    def tanh(self, x: Any) -> Any:
        builder = self.builder
        square = self.product(x, x)
        near = self.sum(x, self.product(self.product(x, square), self.polynomial(_TANH, square)))
        double = self.exp(self.product(x, self.number(2.0)))
        quotient = builder.fdiv(self.number(2.0), self.sum(double, self.number(1.0)))
        far = builder.fsub(self.number(1.0), quotient)
        is_near = builder.fcmp_ordered("<", square, self.number(0.625**2))
        return builder.select(is_near, near, far)

    def normal_cdf(self, x: Any) -> Any:
        """(1 + erf(x / √2)) / 2"""
        x = self.within(self.product(x, self.number(sqrt(0.5))), 4.0)
        square = self.product(x, x)
        numerator = self.product(x, self.polynomial(_ERF[0], square))
        erf = self.builder.fdiv(numerator, self.polynomial(_ERF[1], square))
        return self.sum(self.product(erf, self.number(0.5)), self.number(0.5))

    def phi(self, name: str, x: Any) -> Any:
        if name == "tanh":
            return self.tanh(x)
        if name == "gelu":
            return self.product(x, self.normal_cdf(x))
        sigmoid = self.sigmoid(x)
        return sigmoid if name == "sigmoid" else self.product(x, sigmoid)

    def slope(self, name: str, x: Any, y: Any) -> Any:
        """φ'(x), where φ(x) is y; x is not looked at but of silu and gelu."""
        one = self.number(1.0)
        if name == "tanh":
            return self.builder.fsub(one, self.product(y, y))
        if name == "sigmoid":
            return self.product(y, self.builder.fsub(one, y))
        if name == "gelu":
            half = self.product(self.product(x, x), self.number(-0.5))
            density = self.product(self.exp(half), self.number(1 / sqrt(2 * pi)))
            return self.sum(self.normal_cdf(x), self.product(x, density))
        sigmoid = self.sigmoid(x)
        rest = self.product(x, self.builder.fsub(one, sigmoid))
        return self.product(sigmoid, self.sum(rest, one))


def _for_each(body: Callable[[Rows, _Maths, str, Any], None], kind: int) -> Callable[..., Any]:
    """The loop over rows with `body`, for each of the activations, of which argument `kind` says
    the one that is meant."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = Rows(context, builder, signature, arguments)
        builder.function.attributes.add("noinline")  # else it is compiled wherever it is called
        if rows.size == 4:
            for place, name in enumerate(SMOOTH):
                known = ir.Constant(arguments[kind].type, place)
                with (
                    builder.if_then(builder.icmp_signed("==", arguments[kind], known)),
                    cgutils.for_range(builder, rows.count()) as loop,
                ):
                    body(rows, _Maths(rows), name, loop.index)
        return context.get_dummy_value()

    return generate


@intrinsic
def _activate(_: Any, x: Any, kind: Any) -> Any:
    """x = φ(x)"""

    def body(rows: Rows, maths: _Maths, name: str, row: Any) -> None:
        rows.store(maths.phi(name, rows.load(0, row)), 0, row)

    return types.void(x, kind), _for_each(body, 1)


@intrinsic
def _slope(_: Any, x: Any, y: Any, kind: Any) -> Any:
    """x = φ'(x), where φ(x) is y"""

    def body(rows: Rows, maths: _Maths, name: str, row: Any) -> None:
        rows.store(maths.slope(name, rows.load(0, row), rows.load(1, row)), 0, row)

    return types.void(x, y, kind), _for_each(body, 2)


@compiled(entry=True)
def activate_tile(x: Any, kind: int) -> None:
    """x = φ(x) for the place of φ in `SMOOTH`."""
    _activate(x, kind)


@compiled(entry=True)
def slope_of_tile(x: Any, y: Any, kind: int) -> None:
    """x = φ'(x), where φ(x) is y; x is not looked at but of silu and gelu."""
    _slope(x, y, kind)
