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


def prefers_data(samples: int, features: int) -> bool:
    """Whether data M (samples, features) are applied at less cost than the matrix MᵀM."""
    return 2 * samples < features


# Numbers that the interior-point method keeps at most: products of columns, and the rows' matrices.
PAIRS = 30_000_000
MATRICES = 32_000_000
# And polishing, of rows' factors.
POLISHED = 130_000_000
# Inverses, of D² numbers each, that ADMM and polishing keep: rows move between few penalties.
INVERSES = 12


def solve_bytes(width: int, m: int, rows: int, itemsize: int) -> int:
    """Bytes that a solve takes at most in one process.

    Of the size of the Gram matrix: itself, its live columns and their magnitudes; the inverses,
    three in the making; bases of free or seen directions, and what the columns of either block
    span. Beside them the data, their copy, a
    dozen arrays over the rows; the interior-point method's products of columns, and what it or
    polishing, which comes later, factors for rows.
    """
    gram = width * m if prefers_data(m, width) else width * width
    side = max(-(-width // 3), m if 3 * m <= 2 * width else 0)
    pairs = min(PAIRS, width * side * (side + 1) // 2)
    interior = 3 * min(MATRICES, rows * side * side)
    polish = min(POLISHED, rows * width * width // 4)
    held = (3 + INVERSES + 3 + 3 + 2) * gram
    return itemsize * (2 * width * m + held + 14 * rows * width + 2 * pairs + max(interior, polish))


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
