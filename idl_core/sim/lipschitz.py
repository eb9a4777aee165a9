"""How steep an activation is: ‖A‖∞ times that must stay below 1."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from idl_core.activations import ACTIVATIONS
from idl_core.sim.activation_names import activation_name

# Binary fractions: kinks at small round numbers fall between two points or on one.
_STEP, _NEAR, _FAR = 2.0**-10, 32.0, (1000.0, 300.0, 100.0)
_CLOSE = 2.0**-20
_MOST = 100.0  # steeper than this is a jump, or grows without bound


@torch.no_grad()
def lipschitz_constant(phi: Callable[[Tensor], Tensor]) -> float:
    """The Lipschitz constant of an elementwise φ.

    Those of `ACTIVATIONS` are known; another's is the steepest of difference quotients on
    [-1000, 1000], fine around zero, which is within 1e-6 of it.

    Raises:
        ValueError: it has none: φ jumps, grows without bound, or is not a number somewhere.
    """
    name = activation_name(phi)
    if name is not None:
        return ACTIVATIONS[name].lipschitz
    if isinstance(phi, nn.Module):  # as it is used; RReLU is random otherwise
        phi = copy.deepcopy(phi).cpu().double().eval()
    near = torch.arange(-_NEAR, _NEAR, _STEP, dtype=torch.float64)
    far = near.new_tensor(_FAR)
    points = torch.cat([-far, near, far.flip(0)])

    def slopes(start: Tensor, end: Tensor) -> Tensor:
        return (phi(end.clone()) - phi(start.clone())) / (end - start)

    found = torch.cat(
        [
            slopes(points[:-1], points[1:]),
            slopes(points - _CLOSE, points),
            slopes(points, points + _CLOSE),
        ]
    ).abs()
    steepest = float(found.max())  # nan where there is one
    if not steepest <= _MOST:
        raise ValueError(
            f"activation_fn has a slope of {steepest:.3g} somewhere: it must have a Lipschitz "
            "constant, for ‖A‖∞ times that to be below 1"
        )
    return steepest
