"""Warnings about solves that a GPU has not finished.

CUDA solves are asynchronous, and to ask at once whether one has converged is to wait for it: the
numbers are copied without synchronising, and a warning is emitted at a later solve or by
`flush_warnings`.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class _Pending(NamedTuple):
    """A copy under way, the event that ends it, and what warns where its numbers call for it."""

    done: torch.cuda.Event
    copy: Tensor
    warn: Callable[[Tensor], None]


Warn = Callable[[Tensor], None]

_pending: deque[_Pending] = deque()
_collected: list[tuple[Tensor, Warn]] | None = None
_lock = threading.Lock()  # adjoint solves end in autograd's threads


def warn_when_copied(numbers: Tensor, warn: Callable[[Tensor], None]) -> None:
    """Copy numbers from a GPU without waiting for it; call warn(copy) once they have arrived.

    Of a solve that a CUDA graph captures nothing is copied: what captures it looks at it after
    each replay (`CapturedSolves`).
    """
    with _lock:
        if _collected is not None:
            _collected.append((numbers, warn))
            return
    # Streams and events are the current device's, which need not be the one that solves.
    with torch.cuda.device(numbers.device):
        if torch.cuda.is_current_stream_capturing():  # where to ask an event is forbidden too
            return
        flush_warnings(wait=False)
        host = torch.empty(numbers.shape, pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
    with _lock:
        _pending.append(_Pending(done, host, warn))


@contextmanager
def collected() -> Iterator[list[tuple[Tensor, Warn]]]:
    """Within it no solve on a GPU is copied or warned of: they are put on the list instead."""
    global _collected
    before = _collected
    found: list[tuple[Tensor, Warn]] = []
    with _lock:
        _collected = found
    try:
        yield found
    finally:
        with _lock:
            _collected = before


def flush_warnings(*, wait: bool = True) -> None:
    """Emit the warnings of solves on a GPU that were not finished when they were called.

    Args:
        wait: for the GPU; else only what has arrived is looked at.
    """
    while (first := _take(wait)) is not None:
        first.done.synchronize()
        first.warn(first.copy)


def _take(even_unfinished: bool) -> _Pending | None:
    """The oldest of those pending, if its numbers have arrived or may be waited for."""
    with _lock:
        if _pending and (even_unfinished or _pending[0].done.query()):
            return _pending.popleft()
    return None


atexit.register(flush_warnings)
