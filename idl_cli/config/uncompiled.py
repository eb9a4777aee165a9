"""torch's optimizers without torch's compiler, for a loop that is not compiled."""

from __future__ import annotations

from functools import cache
from inspect import unwrap
from typing import Any

import torch
from torch.optim import Optimizer

_NOT_TO_BE_COMPILED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


@cache
def uncompiled(kind: type[Optimizer]) -> Any:
    """The same optimizer, to the last bit, that does not load torch._dynamo.

    torch's own loads it to keep the methods above out of compiled graphs: two seconds at the start
    of every training, a third of what a small one takes. A torch that wraps them in another way,
    not undone here, loads it as before.
    """
    step = unwrap(kind.step)
    methods = {name: unwrap(getattr(kind, name)) for name in _NOT_TO_BE_COMPILED}

    @torch.no_grad()
    def step_without_gradients(self: Optimizer, closure: Any = None) -> Any:
        return step(self, closure)

    return type(kind.__name__, (kind,), methods | {"step": step_without_gradients})
