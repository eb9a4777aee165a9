"""metrics.jsonl: all metrics of a run, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from idl_cli.atomic_write import write_whole
from idl_cli.record.run_directory import finite
from idl_core.training.callbacks import Callback, Metrics, Plan, Progress


class MetricsLogger(Callback):
    """Appends each report as `{"step", "epoch", "split", <metrics>}`, at once.

    What cannot be written, as the disk is full, is said once and waits in memory for the next time.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._file: IO[bytes] | None = None
        self._pending = b""
        self._warned = False

    def on_start(self, plan: Plan) -> None:
        """Begin, or drop the lines after the checkpoint's step: those steps are repeated."""
        if self.path.exists():
            lines = self.path.read_bytes().splitlines()
            write_whole(self.path, b"".join(line + b"\n" for line in lines if _holds(line, plan)))
        self._open()

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self.write(progress, "train", metrics)

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        self.write(progress, split, metrics)

    def write(self, progress: Progress, split: str, metrics: Metrics) -> None:
        """Append one line."""
        if self._file is None:  # nothing was trained: there are only metrics of the test split
            self._open()
        place = {"step": progress.step, "epoch": progress.pass_number, "split": split}
        self._pending += (json.dumps(finite({**place, **metrics})) + "\n").encode()
        self._flush()

    def close(self) -> None:
        if self._file is not None:
            self._flush()
            self._file.close()

    def _open(self) -> None:
        # Unbuffered: a write that fails leaves nothing behind that would fail once more.
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115

    def _flush(self) -> None:
        assert self._file is not None
        try:
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) :]
        except OSError as error:
            if not self._warned:
                self._say(f"warning: {self.path} not written ({error.strerror}): trying again")
            self._warned = True


def _holds(line: bytes, plan: Plan) -> bool:
    """Whether a line of an earlier process is of a step that the checkpoint holds.

    One that is damaged, cut short by a crash say, is of none.
    """
    try:
        row: dict[str, Any] = json.loads(line)
        return bool(row["split"] != "test" and row["step"] <= plan.first_step)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
