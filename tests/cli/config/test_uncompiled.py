"""torch's optimizers without its compiler: the same weights and state, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from idl_cli.config.build_training import uncompiled


def trained(optimizer: Any, model: nn.Module, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(7, 5, generator=generator)
        model(x).square().mean().backward()
        optimizer.step()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.AdamW, {"betas": (0.8, 0.9)}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_to_the_last_bit_and_each_goes_on_from_the_others_state(
    kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    models, optimizers = [], []
    for make in (kind, uncompiled(kind)):
        torch.manual_seed(0)
        models.append(nn.Linear(5, 3))
        optimizers.append(make(models[-1].parameters(), lr=0.1, fused=True, **options))
    for model, optimizer in zip(models, optimizers, strict=True):
        trained(optimizer, model, 5)
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    optimizers[0].load_state_dict(states[1])
    optimizers[1].load_state_dict(states[0])
    for model, optimizer in zip(models, optimizers, strict=True):
        trained(optimizer, model, 5)
    for theirs, ours in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(theirs, ours)
    assert isinstance(optimizers[1], kind)


def test_it_has_no_gradient_of_its_own_and_gives_a_closure_one() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = uncompiled(torch.optim.SGD)([weight], lr=0.5)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = weight.square().sum()
        value.backward()
        return value

    assert optimizer.step(loss).item() == 3
    assert weight.tolist() == [0, 0, 0]
    assert weight.is_leaf
