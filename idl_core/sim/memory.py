"""How much memory states and factors take, said before any of it is allocated."""

from __future__ import annotations

import os
from pathlib import Path

import torch


class NotEnoughMemory(MemoryError):
    """The problem does not fit; the message says what to change."""


def states_bytes(n: int, p: int, q: int, m: int, itemsize: int) -> int:
    """Bytes of X, U, Z, Y and of the copies in which they are gathered."""
    return 2 * (2 * n + p + q) * m * itemsize


# Numbers that the interior-point method keeps at most: products of columns, and the rows' matrices.
PAIRS = 30_000_000
MATRICES = 32_000_000


def solve_bytes(width: int, m: int, rows: int) -> int:
    """Bytes that a solve takes at most in one process, in float64.

    The data, their copy in float64 and the chunks that QR factors; of the size of the Gram matrix:
    R, the Gram matrix, and eigenvectors and inverses of two low-curvature subspaces; the points of
    the rows, their changes and what is computed from them; products of columns, and the rows'
    matrices.
    """
    rank = min(m, width)
    held = 14 * width * width if m > width / 3 else 4 * rank * width
    chunk = 10 * rank * width
    matrix = max(width * width if m > width / 3 else 0, rank * rank)
    matrices = 3 * max(matrix, min(MATRICES, rows * matrix))
    pairs = min(PAIRS, width * rank * (rank + 1) // 2)
    return 8 * (2 * width * m + held + chunk + 60 * rows * width + 2 * pairs + matrices)


def available_bytes(device: torch.device) -> int | None:
    """Bytes free on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        found.append(max(0, int(limit.read_text()) - int(used.read_text())))
    if not found and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def require(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Raise `NotEnoughMemory` where `needed` bytes are more than the device has free."""
    free = available_bytes(device)
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"{what} needs about {needed / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB "
            f"free: {advice}"
        )
