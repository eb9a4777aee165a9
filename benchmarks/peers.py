"""The packages that are compared against: there or not, and one training step of each."""

from __future__ import annotations

import importlib.util
import sys

PEERS = ("torchidl", "torchdeq")


def require(*names: str) -> None:
    """Exit with a plain message where a peer is not installed."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        print(f"not installed: {', '.join(absent)}; `bash scripts/bench.sh` installs the peers.")
        sys.exit(0)
