"""What an equilibrium cannot be part of: torch.func, forward mode, tracing and export.

A solve iterates until data say that it has converged, and its gradient is an autograd function of
its own. Each of these transforms would end in an error of torch that names neither.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from idl_core.equilibrium.solution import LastChange, Solution

_INSTEAD = "fixed_point(..., adjoint=Unrolled(steps))"
_NOT_BY_FUNC = (
    "torch.func (grad, vmap, jvp, jacrev, ...) cannot transform an equilibrium; backward(), "
    f"torch.autograd.grad and torch.func.functional_call work, and so does {_INSTEAD}"
)


def functorch_is_active() -> bool:
    """Whether a transform of torch.func is at work, as far as it can be seen: torch.compile, which
    follows those itself, does not look behind the question."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def is_exporting() -> bool:
    """Whether torch.export follows what is computed."""
    # The flag itself (torch 2.7 has it): the function is_exporting, to the torch.compile of
    # torch 2.11, is always true.
    return bool(getattr(torch.compiler, "_is_exporting_flag", False))


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Raise NotImplementedError, with what is supported, where a solve with its own gradient
    cannot be followed.

    Args:
        tensors: that the equilibrium depends on; looked at for tangents of forward mode.
    """
    refuse_tracing()
    if functorch_is_active():
        raise NotImplementedError(_NOT_BY_FUNC)
    refuse_tangents(*tensors)


def refuse_tracing() -> None:
    """Raise NotImplementedError where the iterations of a solve would have to be known."""
    if is_exporting():
        raise NotImplementedError(
            "torch.export cannot follow an equilibrium, whose iterations depend on the data; "
            f"torch.compile can, state_dict and pickle carry the model, and {_INSTEAD} is exported"
        )
    if torch.jit.is_tracing():
        raise NotImplementedError(
            "torch.jit.trace would freeze the iterations of an equilibrium, which depend on the "
            "data; torch.compile can follow it, and state_dict and pickle carry the model"
        )


def refuse_vmap(*tensors: Tensor | None) -> None:
    """Raise NotImplementedError where torch maps over a batch, which has no single number: by
    torch.func.vmap, or by is_grads_batched and jacobian(..., vectorize=True), of one of tensors."""
    if torch.compiler.is_compiling():
        return
    functorch = torch._C._functorch
    if any(t is not None and functorch.is_legacy_batchedtensor(t) for t in tensors):
        raise NotImplementedError(
            "gradients of an equilibrium are not computed in batches (is_grads_batched, "
            "vectorize=True); one by one they are, and fixed_point(..., adjoint=Unrolled(steps)) "
            "has both"
        )
    if functorch_is_active():
        stack = functorch.get_interpreter_stack() or []
        if any(level.key() == functorch.TransformType.Vmap for level in stack):
            raise NotImplementedError(_NOT_BY_FUNC)


def refuse_tangents(*tensors: Tensor | None) -> None:
    """Raise NotImplementedError where one of the tensors has a tangent of forward-mode AD."""
    if forward_ad._current_level < 0:
        return
    if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError(
            "an equilibrium has no forward-mode derivative (forward_ad, jvp); reverse mode, "
            f"backward() and torch.autograd.grad, works, and {_INSTEAD} has both"
        )


def has_no_values(x: Tensor) -> bool:
    """Whether x has a shape and no numbers: on the meta device, or a FakeTensor."""
    return x.is_meta or isinstance(x, FakeTensor)


def without_values(value: Tensor, tol: float) -> Solution:
    """What stands for a solution where there are no numbers: its shape, after one iteration."""
    rows = value.detach().reshape(1, -1) if value.dim() < 2 else value.detach().flatten(1)
    measured = LastChange(rows.abs(), rows, tol, 1)
    return Solution(value, measured, tol, known_converged=True)
