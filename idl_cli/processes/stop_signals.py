"""Signals (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP) as requests to stop after the current step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]
_ONE_PRESS_SECONDS = 0.25


class Interrupted(Exception):
    """A signal ended the computation, which was saved before."""

    def __init__(self, message: str, exit_code: int, signal: int | None = None) -> None:
        super().__init__(message)
        self.exit_code, self.signal = exit_code, signal


class StopSignals:
    """Callable: true once a signal asked to stop. It listens while it is entered.

    A second Ctrl-C stops at once.

    Two within a moment are one: a terminal gives Ctrl-C to every process of a command, and some
    programs between (launchers, torchrun) pass theirs on.

    SIGUSR1 is what clusters send before they take the machine away. Submitit listens for SIGUSR2,
    to queue the job again: whoever listens waits here until the run is saved, see `pass_on`.

    SIGHUP says that the terminal was closed; a run under nohup ignores it, and goes on.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._terminals: list[int] = []

    def __call__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 129 after SIGHUP, else 143, as a shell reports them."""
        codes = {"SIGINT": 130, "SIGHUP": 129}
        return 143 if self.received is None else codes.get(self.received.name, 143)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._terminals = _terminals()
            for number in (*_SIGNALS, *_listened_to()):
                if number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                    continue
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
            if time.monotonic() - self._received_at < _ONE_PRESS_SECONDS:
                return
            raise KeyboardInterrupt
        self.received, self._received_at = signal.Signals(number), time.monotonic()
        if self.received.name == "SIGHUP":
            self._leave_terminal()
        if number == signal.SIGINT:
            # Written past Python's buffers: the signal may have come amid a print.
            with contextlib.suppress(OSError):
                os.write(2, self._saying)

    _saying = b"\nstopping after this step; Ctrl-C again stops at once\n"

    def _leave_terminal(self) -> None:
        """Redirect stdout and stderr from the closed terminal: writing to it would fail."""
        for descriptor in self._terminals:
            os.dup2(nowhere := os.open(os.devnull, os.O_WRONLY), descriptor)
            os.close(nowhere)
        self._terminals = []


class SweepSignals(StopSignals):
    """The same for a sweep whose jobs run in a pool of processes: all of them stop, and save.

    A file `.stopping` in the sweep's folder asks them to, since one may be between two jobs or
    still starting. Signals to the pool's processes themselves are ignored, see `PoolStop`.
    """

    _saying = b"\nstopping: the jobs under way save; Ctrl-C again stops at once\n"

    def __init__(self) -> None:
        super().__init__()
        self.sweep: Path | None = None

    def __enter__(self) -> SweepSignals:
        if self.sweep is not None:  # left by one that was killed
            _stop_file(self.sweep).unlink(missing_ok=True)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if self.sweep is not None:
            _stop_file(self.sweep).unlink(missing_ok=True)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        super()._receive(number, frame)
        if self.sweep is not None:
            with contextlib.suppress(OSError):
                _stop_file(self.sweep).write_text(str(number))


class PoolStop(StopSignals):
    """In a process of a pool: true once the process that started it was asked to stop."""

    def __init__(self, sweep: Path) -> None:
        super().__init__()
        self._file = _stop_file(sweep)

    def __call__(self) -> bool:
        if self.received is None and self._file.exists():
            with contextlib.suppress(OSError, ValueError):
                self.received = signal.Signals(int(self._file.read_text()))
                if self.received.name == "SIGHUP":
                    self._leave_terminal()
        return self.received is not None

    def __enter__(self) -> PoolStop:
        self._terminals = _terminals()
        for number in _SIGNALS:  # for good: between two jobs they are ignored too
            signal.signal(number, signal.SIG_IGN)
        return self


def _stop_file(sweep: Path) -> Path:
    return sweep / ".stopping"


def pass_on(number: int | None) -> None:
    """Raise a signal that ended a run again, for the handler from before the run.

    Submitit queues the job again and ends the process; where nobody listened nothing happens.
    """
    if number is None:
        return
    handler = signal.getsignal(number)
    if callable(handler) and handler is not signal.default_int_handler:
        signal.raise_signal(number)


def _terminals() -> list[int]:
    """Which of stdout and stderr are terminals."""
    return [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]


def _listened_to() -> list[signal.Signals]:
    number = getattr(signal, "SIGUSR2", None)
    return [number] if number is not None and callable(signal.getsignal(number)) else []
