"""Settings of the core's tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

from idl_core import ImplicitModel, ImplicitRNN


@pytest.fixture(scope="session", autouse=True)
def _what_numba_compiles_is_there() -> None:
    """Once a checkout: compiling takes longer than a test may."""
    for dtype in (torch.float32, torch.float64):
        for model, shape in (
            (ImplicitModel(2, 1, 4), (2, 2)),
            (ImplicitModel(2, 1, 5), (2, 2)),
            (ImplicitRNN(2, 1, 4, 2), (2, 2, 2)),
        ):
            model.to(dtype)(torch.ones(shape, dtype=dtype)).sum().backward()


@pytest.fixture(autouse=True)
def _a_hang_is_a_failure() -> Iterator[None]:
    """An iteration in floating point that need not end is a fault to report, not to wait for."""

    def fail(*_: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 30)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
