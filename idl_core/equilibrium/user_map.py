"""A map that a user wrote, called so that it can spoil nothing, and its results checked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]

# What an iterate may be in. Complex numbers would need another norm, integers do not converge.
REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class UserMap:
    """f, given a copy of each iterate, so that it may work in place; what it gives is copied too,
    so that it may give its own argument, a tensor of the caller or one buffer again and again.

    Args:
        f: map from a tensor to one of the same shape.
        x0: the initial guess.

    Raises:
        ValueError: x0 is no real tensor in floating point; when called, where the result is of
            another kind, shape or device.
    """

    def __init__(self, f: Map, x0: Tensor) -> None:
        if not isinstance(x0, Tensor):
            raise ValueError(f"x0 must be a tensor, not {type(x0).__name__}")
        if x0.is_complex():
            raise ValueError(
                f"x0 is {x0.dtype}: only real fixed points are solved for; keep real and imaginary "
                "parts apart with torch.view_as_real"
            )
        if x0.dtype not in REAL or x0.layout != torch.strided:
            kind = x0.dtype if x0.layout == torch.strided else x0.layout
            raise ValueError(f"x0 is {kind}: give it dense and in floating point, as x0.float()")
        self.f = f

    def __call__(self, x: Tensor) -> Tensor:
        image = self.f(x.clone())
        if not isinstance(image, Tensor):
            raise ValueError(f"f must give a tensor, not {type(image).__name__}")
        if image.shape != x.shape:
            raise ValueError(
                f"f gives the shape {tuple(image.shape)} for x of shape {tuple(x.shape)}: a map "
                "keeps the shape"
            )
        if image.dtype not in REAL or image.device != x.device:
            raise ValueError(
                f"f gives {image.dtype} on {image.device} for {x.dtype} on {x.device}: a map gives "
                "real numbers in floating point, where x is"
            )
        return image.clone()
