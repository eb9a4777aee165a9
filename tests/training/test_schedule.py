"""The schedules against torch's own, and what only ours has."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from idl_core.training import Schedule, constant, cosine, step_decay


def rates_of_torch(make: type[lr_scheduler.LRScheduler], steps: int, **settings: float) -> list:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **settings)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (cosine(20), lr_scheduler.CosineAnnealingLR, {"T_max": 20}),
        (cosine(20, final=0.1), lr_scheduler.CosineAnnealingLR, {"T_max": 20, "eta_min": 0.1}),
        (step_decay(6, 0.5), lr_scheduler.StepLR, {"step_size": 6, "gamma": 0.5}),
        (constant(), lr_scheduler.ConstantLR, {"factor": 1.0}),
    ],
)
def test_as_torch(ours: Schedule, theirs: type, settings: dict[str, float]) -> None:
    assert [ours(step) for step in range(20)] == pytest.approx(
        rates_of_torch(theirs, 20, **settings)
    )


@pytest.mark.parametrize("schedule", [constant(4), cosine(100, 4), step_decay(99, 0.5, 4)])
def test_warmup_rises_evenly_from_above_nothing(schedule: Schedule) -> None:
    assert [schedule(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert schedule(4) == pytest.approx(1.0)


def test_cosine_stays_at_its_end() -> None:
    assert [cosine(10, 2, 0.25)(step) for step in (10, 11, 1000)] == [0.25] * 3
