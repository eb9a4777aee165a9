"""Implicit models of each layout, small enough to solve by hand."""

from __future__ import annotations

import torch

from idl import ImplicitFunctionTriu, ImplicitModel

P, Q, N, M = 6, 3, 9, 5
VARIANTS = {
    "plain": {},
    "bias": {"bias": True},
    "no_D": {"no_D": True},
    "low_rank": {"is_low_rank": True, "rank": 2},
    "triangular": {"f": ImplicitFunctionTriu},
}


def make(**settings) -> ImplicitModel:
    """A small model well within its ball: the constraint changes nothing."""
    torch.manual_seed(0)
    model = ImplicitModel(P, Q, N, **settings)
    if not model.is_low_rank:
        with torch.no_grad():
            model.A.mul_(0.5)
    return model
