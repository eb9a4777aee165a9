"""The activations φ of an equilibrium, with what a solver needs to know of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """A component-wise activation.

    Attributes:
        phi: φ.
        dphi: φ' at the pre-activation.
        phi_: φ that may overwrite its argument.
        dphi_of_output: φ' as a function of φ's value, where φ is injective enough to allow it:
            the pre-activation then need not be kept.
        lipschitz: smallest Lipschitz constant of φ. ‖A‖∞ · lipschitz < 1 makes X = φ(AX + BU)
            well-posed.
        negative_slope: of a φ that is x above zero and negative_slope · x below: compiled kernels
            know it by this number.
        name: in `ACTIVATIONS`: what GPU kernels know it by; None for a user's own.
    """

    phi: Elementwise
    dphi: Elementwise
    phi_: Elementwise
    dphi_of_output: Elementwise | None = None
    lipschitz: float = 1.0
    negative_slope: float | None = None
    name: str | None = None


LEAKY_SLOPE = 0.01


def _positive(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _leaky_slope(x: Tensor) -> Tensor:
    # In the dtype of x: of two numbers torch.where would round to float32.
    return torch.where(x > 0, x.new_ones(()), x.new_full((), LEAKY_SLOPE))


def _dsilu(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


def _dgelu(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density


def _dtanh(x: Tensor) -> Tensor:
    return 1 - torch.tanh(x) ** 2


def _dtanh_of_output(y: Tensor) -> Tensor:
    return 1 - y * y


def _dsigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _dsigmoid_of_output(y: Tensor) -> Tensor:
    return y * (1 - y)


def _delu(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, torch.exp(x)).to(x.dtype)


def _delu_of_output(y: Tensor) -> Tensor:
    return torch.where(y > 0, 1.0, y + 1).to(y.dtype)


def _dsoftplus_of_output(y: Tensor) -> Tensor:
    return -torch.expm1(-y)


def _same(x: Tensor) -> Tensor:
    return x


# Functions with names, no lambdas: a model is pickled with its activation.
ACTIVATIONS: dict[str, Activation] = {
    # Of a ReLU's output the sign is its slope, and far cheaper than a comparison on the CPU.
    "relu": Activation(torch.relu, _positive, torch.relu_, torch.sign, negative_slope=0.0),
    "leaky_relu": Activation(
        partial(F.leaky_relu, negative_slope=LEAKY_SLOPE),
        _leaky_slope,
        partial(F.leaky_relu, negative_slope=LEAKY_SLOPE, inplace=True),
        _leaky_slope,
        negative_slope=LEAKY_SLOPE,
    ),
    "tanh": Activation(torch.tanh, _dtanh, torch.tanh_, _dtanh_of_output),
    "sigmoid": Activation(
        torch.sigmoid, _dsigmoid, torch.sigmoid_, _dsigmoid_of_output, lipschitz=0.25
    ),
    # Steepest slopes: silu at x = 2.3994, gelu at x = sqrt(2); rounded up.
    "silu": Activation(F.silu, _dsilu, partial(F.silu, inplace=True), lipschitz=1.0999),
    "gelu": Activation(F.gelu, _dgelu, F.gelu, lipschitz=1.1290),
    "elu": Activation(F.elu, _delu, partial(F.elu, inplace=True), _delu_of_output),
    "softplus": Activation(F.softplus, torch.sigmoid, F.softplus, _dsoftplus_of_output),
    "identity": Activation(_same, torch.ones_like, _same, torch.ones_like, negative_slope=1.0),
}
ACTIVATIONS = {name: replace(one, name=name) for name, one in ACTIVATIONS.items()}


@dataclass(frozen=True)
class DerivativeByAutograd:
    """φ' of a component-wise φ, by automatic differentiation at the pre-activation."""

    phi: Elementwise

    def __call__(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            # Of a copy: φ may overwrite its argument, which autograd forbids for a leaf.
            (slope,) = torch.autograd.grad(self.phi(point.clone()).sum(), point)
        return slope


@dataclass(frozen=True)
class OwnPhi:
    """φ that a user wrote, overwriting its argument: what it gives may be a new tensor, its
    argument, or a buffer of its own that it fills again in the next call.

    Raises: ValueError where that is no tensor of the same shape.
    """

    phi: Elementwise

    def __call__(self, x: Tensor) -> Tensor:
        y = self.phi(x)
        if not isinstance(y, Tensor) or y.shape != x.shape:
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"phi gives {given} for X of shape {tuple(x.shape)}: an activation is applied "
                "entry by entry"
            )
        return y if y is x else x.copy_(y)


@dataclass(frozen=True)
class OnACopy:
    """Applies an `OwnPhi` to a copy of its argument."""

    phi: OwnPhi

    def __call__(self, x: Tensor) -> Tensor:
        return self.phi(x.clone())


def own_activation(phi: Elementwise, dphi: Elementwise) -> Activation:
    """The activation of φ and φ' that a user wrote: they may work in place."""
    own = OwnPhi(phi)
    return Activation(OnACopy(own), OnACopy(OwnPhi(dphi)), own)
