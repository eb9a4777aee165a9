"""What the Triton programs can solve here; triton itself is not imported for that."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solvers import Picard, Solver

# The activations that the programs know.
KNOWN = ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "identity")
# The first that compiles the programs: those before refuse a product of fewer than 16 rows.
OLDEST_TRITON = (3, 5)

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def obstacle(
    activation: Activation, solvers: tuple[Solver, ...], tensors: tuple[Tensor, ...]
) -> str | None:
    """Why Triton cannot solve with these; None where it can."""
    name = activation.name
    if name not in KNOWN:
        return f"{name or 'the activation'} has no Triton form; {', '.join(KNOWN)} have"
    for solver in solvers:
        if not isinstance(solver, Picard):
            return f"it is a Picard iteration, and the solver is {type(solver).__name__}"
    for tensor in tensors:
        if tensor.dtype not in _DTYPES:
            return f"{tensor.dtype} is left to torch: it takes float32, bfloat16 and float16"
    return why_not(tensors[0].device.type)


def _installed() -> str | None:
    """What is amiss with the triton that is installed, which is not imported for that."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version = "of no known version"
    for distribution in ("triton", "pytorch-triton", "triton-windows"):
        try:
            version = importlib.metadata.version(distribution)
            break
        except importlib.metadata.PackageNotFoundError:
            pass
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        return f"triton is {version}; it takes {oldest} or later, which torch 2.9 or later brings"
    return None


# Looked for here: torch.compile does not look into find_spec.
NO_TRITON = _installed()

# A plain dictionary: torch.compile looks into it, and not behind functools.cache.
_obstacles: dict[str, str | None] = {}


def why_not(device: str) -> str | None:
    """Why no Triton program can run on tensors of this type of device."""
    if device not in _obstacles:
        _obstacles[device] = _look(device)
    return _obstacles[device]


def _look(device: str) -> str | None:
    if NO_TRITON is not None:
        return NO_TRITON
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None  # programs run on the CPU, slowly: for tests
    if device != "cuda":
        return f"it is on the {device}, not on a CUDA GPU"
    if not torch.cuda.is_available():
        return "there is no CUDA GPU that torch can use"
    if torch.version.hip is not None:
        return "it was written for NVIDIA's GPUs"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than compute capability 8.0"
    return None
