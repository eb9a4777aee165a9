"""Refuses second derivatives where a backward pass has none, wherever they would have come from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idl_core.equilibrium.transforms import refuse_vmap

Gradients = tuple[Tensor | None, ...]


def first_order_only(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Decorates the backward of an autograd function that can be differentiated once.

    Torch's `once_differentiable` ties its refusal to the incoming gradient alone: a derivative of
    the gradient with respect to a parameter finds its other paths and is silently incomplete. Here
    the refusal hangs on all that the backward pass has read, the saved tensors included; `ctx`
    may name more of it in `ctx.also_read`. Autocast is off within.
    """

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor | None) -> Gradients:
        refuse_vmap(*grads)
        if not torch.is_grad_enabled():  # no create_graph
            return _as_it_was_solved(backward, ctx, grads)
        with torch.no_grad():
            gradients = _as_it_was_solved(backward, ctx, grads)
        present = [g for g in gradients if g is not None]
        read = [*grads, *ctx.saved_tensors, *getattr(ctx, "also_read", ())]
        tied = iter(_Refusal.apply(len(present), *present, *read))
        return tuple(None if g is None else next(tied) for g in gradients)

    return wrapper


def _as_it_was_solved(
    backward: Callable[..., Gradients], ctx: Any, grads: tuple[Tensor | None, ...]
) -> Gradients:
    """Call backward outside autocast, as solves are: torch runs it where `backward()` is called."""
    device = next((g.device.type for g in grads if g is not None), "cpu")
    if not torch.is_autocast_enabled(device):
        return backward(ctx, *grads)
    with torch.autocast(device, enabled=False):
        return backward(ctx, *grads)


class _Refusal(torch.autograd.Function):
    """Identity on its first `count` tensors; its backward is an error."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(t if t is None else t.detach() for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(
            "an equilibrium can be differentiated once: for second derivatives (Hessians, gradient "
            "penalties, forward mode) use fixed_point(..., adjoint=Unrolled(steps)) or "
            "Phantom(steps) with many steps"
        )
