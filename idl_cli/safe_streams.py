"""stdout and stderr that never raise: a run's fate does not hang on its screen.

A reader may go away (`| head -1`), a disk may be full, a descriptor closed (`>&-`), a terminal
unable to show a character. What cannot be written is dropped, what cannot be encoded is spelled
out, and whoever prints need not know.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ERRORS = "idl.spelled_out"
# Every other character that an encoding lacks becomes a question mark.
_SPELLED_OUT = {
    "‖": "||", "∞": "inf", "×": "x", "κ": "kappa", "φ": "phi", "λ": "lambda", "ρ": "rho",
    "ŷ": "y", "Ŷ": "Y", "ᵀ": "^T", "½": "1/2", "²": "^2", "·": "*", "≤": "<=", "≥": ">=",
    "≈": "~", "±": "+-", "−": "-", "–": "-", "─": "-", "…": "...", "’": "'",
}  # fmt: skip


class _SafeOutput(io.RawIOBase):
    """Writes to a descriptor, and drops what it does not take.

    Attributes:
        lost: why something was dropped; None where nothing was, or where the reader went away.
    """

    def __init__(self, descriptor: int, before: TextIO | None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._before = before  # kept alive: as it is collected it closes the descriptor
        self.lost: str | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program has made the pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                if error.errno != errno.EPIPE:
                    self.lost = error.strerror
                return memoryview(data).nbytes


def make_streams_safe() -> None:
    """Replace sys.stdout and sys.stderr by streams that never raise; a second call does nothing.

    What is no file of the system's (a notebook's stream, a test's) stays as it is.
    """
    codecs.register_error(_ERRORS, _spelled_out)
    _open_closed()
    sys.stdout = _safe(sys.stdout, 1)
    sys.stderr = _safe(sys.stderr, 2)


def lost_output() -> str | None:
    """Why output of this process was dropped; None where none was, or its reader went away."""
    for stream in (sys.stdout, sys.stderr):
        raw = _raw(stream)
        if isinstance(raw, _SafeOutput) and raw.lost is not None:
            return raw.lost
    return None


def _open_closed() -> None:
    """Open stdin, stdout and stderr where they are closed, onto nothing.

    The next file that is opened would otherwise become stdout, and have prints in it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            os.set_inheritable(descriptor, True)  # else it is closed in the processes we start


def _safe(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # it was closed when Python started; what has its number may be a file
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    raw = _raw(stream)
    if not isinstance(raw, io.FileIO):
        return stream
    with contextlib.suppress(OSError):  # what others left in it
        stream.flush()
    assert isinstance(stream, io.TextIOWrapper)
    return io.TextIOWrapper(
        io.BufferedWriter(_SafeOutput(raw.fileno(), stream)),
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering or descriptor == 2,
        write_through=stream.write_through,
    )


def _raw(stream: TextIO) -> object:
    """What a stream writes its bytes to."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _spelled_out(error: UnicodeError) -> tuple[str | bytes, int]:
    """The error handler: characters in other words, and undecodable bytes of a path as they were.

    Such bytes are in a string as lone surrogates.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= character <= "\udcff" for character in text):
        return text.encode("ascii", "surrogateescape"), error.end
    return "".join(_SPELLED_OUT.get(character, "?") for character in text), error.end
