"""Scaling a network so that an implicit model within the ball can imitate it exactly."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

# Linear, or positively homogeneous: f(s x) = s f(x) for s > 0.
_PASS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.AvgPool2d,
    nn.MaxPool2d,
)
_TOLERANCE = 1e-4


class NotRescalable(ValueError):
    """The network's outputs would change."""


@torch.no_grad()
def rescaled(network: nn.Module, radius: float, inputs: Tensor) -> nn.Module:
    """A copy of a feed-forward network with the same outputs, and ‖W‖∞ ≤ radius between its states.

    The implicit form of a feed-forward network has its inner layers' weights in A, the first
    layer's in B and the last one's in C (El Ghaoui et al., "Implicit deep learning", SIMODS 3,
    2021, section 3). Where activations are positively homogeneous, W_i / s and s W_{i+1} are the
    same network: what the inner layers exceed the radius by goes into the last, which nothing
    binds, and ‖A‖∞ ≤ radius holds.

    Args:
        network: its linear layers and convolutions are applied in the order of registration.
        radius: above 0.
        inputs: a batch to hold the two networks' outputs against each other.

    Raises:
        NotRescalable: another kind of network; the message says why.
    """
    network = copy.deepcopy(network).eval()
    leaves = [module for module in network.modules() if not list(module.children())]
    layers = [module for module in leaves if isinstance(module, nn.Linear | nn.Conv2d)]
    for module in leaves:
        if module not in layers and not isinstance(module, _PASS):
            raise NotRescalable(f"it has a {type(module).__name__}, which scaling would change")
    before = network(inputs)
    total = 1.0
    for layer in layers[1:-1]:
        scale = max(1.0, _norm(layer) / radius)
        total *= scale
        layer.weight /= scale
        if layer.bias is not None:
            layer.bias /= total
    if len(layers) > 1:
        layers[-1].weight *= total
    after = network(inputs)
    if (after - before).abs().max() > _TOLERANCE * before.abs().max():
        raise NotRescalable("its layers are not applied one after the other")
    return network


def _norm(layer: nn.Linear | nn.Conv2d) -> float:
    """‖W‖∞ of the matrix that a layer applies; of a convolution, away from the border."""
    return float(layer.weight.flatten(1).abs().sum(1).max())
