"""Which implementation solves an affine equilibrium, and why: kernel=auto, torch or triton."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re

import torch
from torch import Tensor

from idl_core.activations import ACTIVATIONS, Activation
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import solves as tiled
from idl_core.kernels.triton.sizes import HIGHEST_RANK, fits_on_chip, shared_memory

KERNELS = ("auto", "torch", "triton")
# The activations that the Triton programs know.
FUSED = ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "identity")
# States beyond which `auto` leaves a dense A to torch: each program then reads more of A in an
# iteration than a launch and a library's product take. Counted in docs/kernels.md, not timed.
WIDEST_AUTO = 512
# The first that compiles the programs: those before refuse a product of fewer than 16 rows.
OLDEST_TRITON = (3, 5)

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fused_dense(
    kernel: str, activation: Activation, solvers: tuple[Solver, Solver], A: Tensor, Z: Tensor
) -> bool:
    """Whether X = φ(X Aᵀ + Z) goes to Triton. Raises: ValueError where "triton" cannot be."""
    if _is_settled(kernel, Z):
        return False
    obstacle = _obstacle(activation, solvers, (A, Z))
    if kernel == "auto" and len(A) > WIDEST_AUTO:
        return False
    return _decide(kernel, obstacle)


def fused_low_rank(
    kernel: str, activation: Activation, solvers: tuple[Solver, Solver], L: Tensor, Z: Tensor
) -> bool:
    """The same for A = L Rᵀ with L (n, r)."""
    if _is_settled(kernel, Z):
        return False
    obstacle = _obstacle(activation, solvers, (L, Z))
    if L.shape[1] > HIGHEST_RANK:
        obstacle = f"the rank is {L.shape[1]}; it takes at most {HIGHEST_RANK}"
    return _decide(kernel, obstacle)


def fused_recurrent(
    kernel: str,
    activation: Activation,
    solvers: tuple[Solver, Solver],
    tensors: tuple[Tensor, ...],
    n: int,
    k: int,
) -> bool:
    """The same for a sequence of n states and k hidden features."""
    if _is_settled(kernel, tensors[0]):
        return False
    obstacle = _obstacle(activation, solvers, tensors)
    device = tensors[0].device
    if not fits_on_chip(n, k, device):
        obstacle = (
            f"{n} states and {k} hidden features do not fit on chip, in registers and "
            f"{shared_memory(device) // 1024} KiB of shared memory"
        )
    return _decide(kernel, obstacle)


def by_tiles(kernel: str) -> bool:
    """Whether what torch would solve may be left to compiled tiles, where they can.

    torch.compile follows torch alone, and compiles that itself.
    """
    return kernel == "auto" and not torch.compiler.is_compiling()


def available() -> dict[str, str]:
    """Kernel name -> 'yes', or why it cannot run here."""
    why = {"triton": _of_this_machine("cuda"), "numba": tiled.why_not()}
    return {"torch": "yes"} | {
        name: "yes" if no is None else f"no: {no}" for name, no in why.items()
    }


def paths() -> dict[str, str]:
    """Activation -> the kernel that `auto` takes for it here, on the GPU if any, and why torch."""
    why = _of_this_machine("cuda")
    usual = "triton" if why is None else f"torch: {why}"
    found = {name: usual if name in FUSED else "torch: no Triton form" for name in ACTIVATIONS}
    if why is not None and not torch.cuda.is_available() and tiled.why_not() is None:
        for name, activation in ACTIVATIONS.items():
            if activation.negative_slope is not None:
                found[name] = f"numba where small, else {found[name]}"
    return found


def _is_settled(kernel: str, like: Tensor) -> bool:
    """Whether torch it is without a second look: asked for, or the usual case on a CPU."""
    return kernel == "torch" or (kernel == "auto" and not like.is_cuda)


def _decide(kernel: str, obstacle: str | None) -> bool:
    if kernel == "triton" and obstacle is not None:
        raise ValueError(f"kernel='triton' cannot solve this: {obstacle}; kernel='auto' can")
    return obstacle is None


def _obstacle(
    activation: Activation, solvers: tuple[Solver, Solver], tensors: tuple[Tensor, ...]
) -> str | None:
    """Why Triton cannot solve with these; None where it can."""
    name = activation.name
    if name not in FUSED:
        return _not_known(name or "the activation")
    for solver in solvers:
        if not isinstance(solver, Picard):
            return f"it is a Picard iteration, and the solver is {type(solver).__name__}"
    for tensor in tensors:
        if tensor.dtype not in _DTYPES:
            return f"{tensor.dtype} is left to torch: it takes float32, bfloat16 and float16"
    return _of_this_machine(tensors[0].device.type)


def _not_known(name: str) -> str:
    return f"{name} has no Triton form; {', '.join(FUSED)} have"


def _why_no_triton() -> str | None:
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
NO_TRITON = _why_no_triton()

# A plain dictionary: torch.compile looks into it, and not behind functools.cache.
_obstacles: dict[str, str | None] = {}


def _of_this_machine(device: str) -> str | None:
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
