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

    SIGUSR1 is what clusters send before they take the machine away.
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
            for number in _SIGNALS:
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
