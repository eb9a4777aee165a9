"""Ctrl-C, SIGTERM and SIGUSR1 as requests to stop after the step under way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class StopSignals:
    """While it is entered, true once a signal asked to stop. A second Ctrl-C stops at once.

    SIGUSR1 is what clusters send before they take the machine away. Submitit listens for SIGUSR2,
    to queue the job again: whoever listens waits here until the run is saved, see `pass_on`.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 143, as a shell reports them."""
        return 130 if self.received == signal.SIGINT else 143

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (*_SIGNALS, *_listened_to()):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            # Written past Python's buffers: the signal may have come amid a print.
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")


def pass_on(number: int | None) -> None:
    """Give a signal that ended a run to whoever listened for it before the run began.

    Submitit queues the job again and ends the process; where nobody listened nothing happens.
    """
    if number is None:
        return
    handler = signal.getsignal(number)
    if callable(handler) and handler is not signal.default_int_handler:
        signal.raise_signal(number)


def _listened_to() -> list[signal.Signals]:
    number = getattr(signal, "SIGUSR2", None)
    return [number] if number is not None and callable(signal.getsignal(number)) else []
