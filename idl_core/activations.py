"""The activations φ of an equilibrium, with what a solver needs to know of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    """

    phi: Elementwise
    dphi: Elementwise
    phi_: Elementwise
    dphi_of_output: Elementwise | None = None
    lipschitz: float = 1.0


LEAKY_SLOPE = 0.01


def _positive(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _leaky_slope(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, LEAKY_SLOPE).to(x.dtype)


def _dsilu(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


def _dgelu(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density


ACTIVATIONS: dict[str, Activation] = {
    # Of a ReLU's output the sign is its slope, and far cheaper than a comparison on the CPU.
    "relu": Activation(torch.relu, _positive, torch.relu_, torch.sign),
    "leaky_relu": Activation(
        lambda x: F.leaky_relu(x, LEAKY_SLOPE),
        _leaky_slope,
        lambda x: F.leaky_relu_(x, LEAKY_SLOPE),
        _leaky_slope,
    ),
    "tanh": Activation(
        torch.tanh, lambda x: 1 - torch.tanh(x) ** 2, torch.tanh_, lambda y: 1 - y * y
    ),
    "sigmoid": Activation(
        torch.sigmoid,
        lambda x: torch.sigmoid(x) * torch.sigmoid(-x),
        torch.sigmoid_,
        lambda y: y * (1 - y),
        lipschitz=0.25,
    ),
    # Steepest slopes: silu at x = 2.3994, gelu at x = sqrt(2); rounded up.
    "silu": Activation(F.silu, _dsilu, lambda x: F.silu(x, inplace=True), lipschitz=1.0999),
    "gelu": Activation(F.gelu, _dgelu, F.gelu, lipschitz=1.1290),
    "elu": Activation(
        F.elu,
        lambda x: torch.where(x > 0, 1.0, torch.exp(x)).to(x.dtype),
        lambda x: F.elu_(x),
        lambda y: torch.where(y > 0, 1.0, y + 1).to(y.dtype),
    ),
    "softplus": Activation(F.softplus, torch.sigmoid, F.softplus, lambda y: -torch.expm1(-y)),
    "identity": Activation(lambda x: x, torch.ones_like, lambda x: x, torch.ones_like),
}


def derivative_by_autograd(phi: Elementwise) -> Elementwise:
    """φ' of a component-wise φ, by automatic differentiation at the pre-activation."""

    def dphi(x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(phi(point).sum(), point)
        return slope

    return dphi
