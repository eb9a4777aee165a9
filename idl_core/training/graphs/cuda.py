"""CUDA graphs as `CapturedStep` needs them, and what a training must be for one.

A captured function is run once while the GPU records what it is asked to do, and each replay does
the same again, at the cost of one launch, on what its tensors hold then. It may not ask the device
for anything, nor allocate what outlives it.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from idl_core.training.components import TrainingComponents
from idl_core.training.distributed import Team
from idl_core.training.evaluation import device_of

Work = Callable[[], None]

# As PyTorch's notes have it: what is chosen or allocated at first use is done with by then.
WARM_UP_RUNS = 3


class CannotCapture(ValueError):
    """Steps were to be captured in any case, and cannot be: one line says why."""


class Graphs(Protocol):
    """What records work and does it again."""

    def warm_up(self, work: Work) -> None:
        """Run it until nothing is left that only first runs do. Raises: RuntimeError where it
        waits for the device."""

    def capture(self, work: Work) -> Work:
        """Record it, not run it; returns what runs it. Raises: RuntimeError if it cannot be."""

    def random_state(self) -> Tensor:
        """Of the device's generator."""

    def set_random_state(self, state: Tensor) -> None:
        """The reverse."""

    def upload(self, values: Sequence[Sequence[float]], into: Tensor) -> None:
        """Copy numbers to the device without waiting for it."""


class CudaGraphs:
    """Graphs on one CUDA device, which share their memory: no two of them run at once, and nothing
    in it is needed from one to the next."""

    def __init__(self, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        self._device, self._optimizer = device, optimizer
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        with torch.cuda.device(self._device):
            side, usual = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(usual)
            with torch.cuda.stream(side):
                for run in range(WARM_UP_RUNS):
                    with _waiting_is_an_error(run == WARM_UP_RUNS - 1):
                        work()
            usual.wait_stream(side)

    def capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            _capturable(self._optimizer),
            # Other threads may use the device meanwhile: it is this one that must not wait. The
            # default generator, of which dropout draws, is registered by the capture.
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay

    def random_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device)

    def set_random_state(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self._device)

    def upload(self, values: Sequence[Sequence[float]], into: Tensor) -> None:
        # From pinned memory, of which torch knows when it may be used again.
        into.copy_(torch.tensor(values, dtype=into.dtype).pin_memory(), non_blocking=True)


def graphs_for(components: TrainingComponents, team: Team) -> Graphs | str:
    """What captures the steps of this training, or why they cannot be."""
    device = device_of(components.model)
    if device.type != "cuda":
        return f"the model is on the {device.type}, and CUDA graphs are of CUDA devices"
    if team.count > 1:
        return f"{team.count} processes share the steps"
    optimizer = components.optimizer
    # Those forms take the learning rate, and keep the count of steps, on the device.
    if not all(group.get("fused") or group.get("capturable") for group in optimizer.param_groups):
        return f"{type(optimizer).__name__} was made without fused=True or capturable=True"
    return CudaGraphs(device, optimizer)


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within it the optimizer consents to be captured; a fused one can be."""
    before: list[Any] = [group.get("capturable") for group in optimizer.param_groups]
    for group, flag in zip(optimizer.param_groups, before, strict=True):
        if flag is not None:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, flag in zip(optimizer.param_groups, before, strict=True):
            if flag is not None:
                group["capturable"] = flag


@contextmanager
def _waiting_is_an_error(wanted: bool) -> Iterator[None]:
    """Within it an operation that waits for the device raises a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error" if wanted else before)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
