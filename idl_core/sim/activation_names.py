"""Which of the project's activations a callable is."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.activations import ACTIVATIONS

Elementwise = Callable[[Tensor], Tensor]

# Those with φ(st) = sφ(t) for s > 0.
HOMOGENEOUS = frozenset({"relu", "leaky_relu", "identity"})

_FUNCTIONS: dict[str, tuple[Elementwise, ...]] = {
    "relu": (F.relu, torch.relu),
    "leaky_relu": (F.leaky_relu,),
    "tanh": (torch.tanh, F.tanh),
    "sigmoid": (torch.sigmoid, F.sigmoid),
    "silu": (F.silu,),
    "gelu": (F.gelu,),
    "elu": (F.elu,),
    "softplus": (F.softplus,),
}
_MODULES: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "elu": nn.ELU(),
    "softplus": nn.Softplus(),
    "identity": nn.Identity(),
}


def activation_name(phi: str | Elementwise) -> str | None:
    """The name in `idl_core.activations.ACTIVATIONS` of an activation, or None."""
    if isinstance(phi, str):
        if phi not in ACTIVATIONS:
            raise ValueError(f"activation_fn must be one of {', '.join(ACTIVATIONS)}, not {phi!r}")
        return phi
    for name, functions in _FUNCTIONS.items():
        if any(phi is function for function in functions):
            return name
    for name, module in _MODULES.items():
        # Compared with its settings: LeakyReLU(0.2) is not our leaky_relu.
        if type(phi) is type(module) and _settings(phi) == _settings(module):
            return name
    return None


def _settings(module: object) -> str:
    return repr(module).replace("inplace=True", "")
