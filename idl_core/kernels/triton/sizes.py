"""How the programs are cut: samples, columns and warps of one; counted and compiled, not timed.

`docs/kernels.md` has the registers and the shared memory that each of these takes on an H100.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idl_core.kernels.triton.precision import precision

# Of a step, states and carries together and padded: programs for wider ones spill registers.
_WIDEST_ON_CHIP = 160
HIGHEST_RANK = 128
# Samples of a program: the fewest that a product takes without waste.
ROWS = 8
_MOST_ROWS = 64
# As triton does by default, and warns that it may not for ever.
_COMPILE = {"enable_fp_fusion": True}
# Where no card can be asked (the interpreter): an H100's multiprocessors, and what a program may
# take of the shared memory of one.
_PROCESSORS = 132
_SHARED = 227 * 1024


def fits_on_chip(n: int, k: int, device: torch.device) -> bool:
    """Whether the matrix (n + k, n + k) of a chain stays in shared memory, of `device`."""
    if padded(n) + padded(k) > _WIDEST_ON_CHIP:
        return False
    # torch.compile does not look into the setting: what fits in TF32 fits in any.
    parts = 2 if torch.compiler.is_compiling() or precision() == "tf32x3" else 1
    return parts * shared(n, k) <= shared_memory(device)


def shared(n: int, k: int) -> int:
    """Bytes of a chain's program: W and two tiles of iterates; twice that as two TF32 parts."""
    width = padded(n) + (padded(k) if k else 0)
    return 4 * (width**2 + 2 * ROWS * max(padded(n), padded(k)))


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may take."""
    if device.type != "cuda":
        return _SHARED
    card: Any = torch.cuda.get_device_properties(device)  # not in the stubs of every torch
    return int(card.shared_memory_per_block_optin)


def padded(size: int) -> int:
    """The power of two, at least 16, that a dimension of a product is padded to."""
    return max(16, 1 << (size - 1).bit_length()) if size else 16


def of_chain(n: int, k: int) -> dict[str, Any]:
    """For `solve_chain`: n states, k numbers carried on."""
    width, carried = padded(n), padded(k)
    warps = min(8, padded(width + (carried if k else 0)) // 16)
    return {"N": width, "K": carried, "ROWS": ROWS, "num_warps": max(2, warps)} | _COMPILE


def of_streamed(rows: int) -> dict[str, Any]:
    """For `solve_streamed`."""
    sizes = {"ROWS": rows, "COLUMNS": 64, "DEPTH": 32, "STAGES": 3}
    return sizes | {"num_warps": 4 if rows <= 16 else 8} | _COMPILE


def of_low_rank(r: int) -> dict[str, Any]:
    """For `solve_low_rank`."""
    columns, warps = (64, 4) if r <= 32 else (32, 8)
    sizes = {"ROWS": ROWS, "COLUMNS": columns, "RANK": padded(r)}
    return sizes | {"num_warps": warps} | _COMPILE


def streamed_rows(m: int, like: Tensor) -> int:
    """Samples of a program that streams its matrix: as many as leave no multiprocessor idle."""
    processors = _PROCESSORS
    if like.is_cuda:
        processors = torch.cuda.get_device_properties(like.device).multi_processor_count
    share = -(-m // processors)
    return ROWS if share <= ROWS else min(padded(share), _MOST_ROWS)
