"""Settings of the whole suite."""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
from collections.abc import Iterator
from pathlib import Path

# The tests' matrices are tiny: a second thread costs more than it gives, in the processes that they
# start too. Set before torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from idl_core import ImplicitModel, ImplicitRNN, flush_warnings

torch.set_num_threads(1)
# What is imported for the tests stays: two million objects that the collector need not go through
# again and again.
gc.disable()

# Tests that wait for other processes. They go first: beside them the other worker of `pytest -n 2`
# has the short ones to do, and neither is left with a long one at the end.
_SLOW_FIRST = (
    "test_train_slurm.py",
    "test_train_launchers.py",
    "test_train_devices.py",
    "test_kill.py",
    "test_admm_multi_gpu.py",
)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
    # Not before pytest has ended: it collects five times then.
    atexit.register(gc.unfreeze)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(_SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def _each_test_has_its_own_warnings() -> Iterator[None]:
    """What a GPU has to say about a test's solves is said within that test."""
    yield
    flush_warnings()


@pytest.fixture(scope="session", autouse=True)
def _what_numba_compiles_is_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Once a checkout: compiling takes longer than a test may. Of two processes each begins with
    another type of numbers, and finds what the other has done when it comes to that one's."""
    dtypes = [torch.float32, torch.float64]
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        dtypes.reverse()
    for dtype in dtypes:
        with open(_shared(tmp_path_factory) / f"compiling {dtype}", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _compile(dtype)


def _compile(dtype: torch.dtype) -> None:
    for model, shape in (
        (ImplicitModel(2, 1, 4), (2, 2)),
        (ImplicitModel(2, 1, 5, is_low_rank=True, rank=2), (2, 2)),
        (ImplicitModel(2, 1, 4, activation="tanh"), (2, 2)),
        (ImplicitRNN(2, 1, 4, 2), (2, 2, 2)),
    ):
        model.to(dtype)(torch.ones(shape, dtype=dtype)).sum().backward()
    ImplicitModel(2, 1, 4).to(dtype).equilibrium(torch.ones(2, 2, dtype=dtype))


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of pytest-xdist see: each has its own below it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
