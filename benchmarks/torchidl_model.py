"""torchidl's ImplicitModel with given weights, and what its solves do."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torchidl
from cases import Case
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def build(case: Case) -> Any:
    """The peer's model at its own defaults (300 iterations, 3e-6), which are ours too."""
    p, n, q, _ = case.sizes
    # It warns at every step that does not converge; the table says so once instead.
    warnings.filterwarnings("ignore", category=torchidl.implicit_function.ImplicitFunctionWarning)
    model = torchidl.ImplicitModel(p, q, n, is_low_rank=case.rank is not None, rank=case.rank)
    model.load_state_dict(case.weights)
    return model


def states(case: Case) -> Tensor:
    """The peer's X (m, n)."""
    model = build(case)
    A = model.A if case.rank is None else model.L @ model.R.T
    start = torch.zeros(case.sizes[1], case.sizes[3])
    return model.f.apply(A, model.B, start, case.inputs.T).detach().T


def count_maps(case: Case, model: nn.Module) -> tuple[int, int]:
    """Applications of A in one forward and in one backward pass."""
    _, n, _, m = case.sizes
    with _Products((n, n), (n, m)) as forward:
        loss = nn.functional.cross_entropy(model(case.inputs), case.targets)
    with _Products((n, n), (n, m)) as backward:
        loss.backward()
    return forward.count, backward.count - 1  # one of them recomputes the activations


class _Products(TorchDispatchMode):
    """Counts the matrix products of given shapes."""

    def __init__(self, left: tuple[int, int], right: tuple[int, int]) -> None:
        super().__init__()
        self.shapes, self.count = (left, right), 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.mm.default:
            self.count += tuple(tuple(a.shape) for a in args) == self.shapes
        return func(*args, **(kwargs or {}))
