"""Out of memory: recognising it, and the line that says what took it and what to lower."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from idl_cli.config.training_options import TrainerConfig
from idl_cli.errors import InputError, RunFailed

# What torch calls it on the CPU: a RuntimeError like any other but for these words.
_CPU_WORDS = ("can't allocate memory", "not enough memory", "calculation overflowed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


def too_large(error: BaseException) -> InputError | None:
    """The line for an allocation that failed outside of a training; None for another error."""
    if not is_out_of_memory(error):
        return None
    wanted = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ \w+)", str(error))
    size = ""
    if wanted:
        size = f" for {_size(int(wanted[1])) if wanted[1] else wanted[2]} at once"
    return InputError(f"out of memory{size}: lower the model's size or the batch's")


def out_of_memory(
    device: torch.device,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sample_shape: Iterable[int],
    trainer: TrainerConfig,
) -> RunFailed:
    """The line that says what the model, a batch and the solver took, and what to lower.

    What the solver took is the peak less the rest, which torch counts on GPUs alone.
    """
    kept = _bytes(model.state_dict().values()) + _bytes(
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    kept += _bytes(p.grad for p in model.parameters() if p.grad is not None)
    item = 8 if trainer.precision == "64" else 4
    batch = item * trainer.batch_size * math.prod(sample_shape)
    parts = f"the model with its optimizer took {_size(kept)}, a batch of {trainer.batch_size} "
    parts += _size(batch)
    room = ""
    if device.type == "cuda":
        solver = max(0, torch.cuda.max_memory_allocated(device) - kept - batch)
        parts += f", the solver, its states and the data set up to {_size(solver)}"
        room = f" ({_size(torch.cuda.get_device_properties(device).total_memory)})"
    else:
        parts += ", the solver and its states the rest"
    return RunFailed(
        f"out of memory on {device}{room}: {parts}; lower trainer.batch_size, "
        "trainer.eval_batch_size or the model's size"
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
