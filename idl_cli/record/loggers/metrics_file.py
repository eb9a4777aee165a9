"""metrics.jsonl: every figure of a run, one JSON object a line. The newest, for summary.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from idl_cli.record.run_directory import finite, write_whole
from idl_core.training.callbacks import Callback, Metrics, Plan, Progress


class MetricsRecord(Callback):
    """Writes each report as `{"step", "epoch", "split", <figures>}`, at once.

    What cannot be written, as the disk is full, is said once and waits in memory for the next time.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._file: IO[bytes] | None = None
        self._pending = b""
        self._told = False

    def on_start(self, plan: Plan) -> None:
        """Begin, or go on after the step of the checkpoint: what came later will come again."""
        if self.path.exists():
            kept = [
                line for line in self.path.read_text("utf-8").splitlines() if _holds(line, plan)
            ]
            write_whole(self.path, "".join(f"{line}\n" for line in kept))
        self._open()

    def on_log(self, progress: Progress, figures: Metrics) -> None:
        self.write(progress, "train", figures)

    def on_evaluation(self, progress: Progress, split: str, figures: Metrics, best: bool) -> None:
        self.write(progress, split, figures)

    def write(self, progress: Progress, split: str, figures: Metrics) -> None:
        """Append one line."""
        if self._file is None:  # nothing was trained: there are only figures of the end
            self._open()
        place = {"step": progress.step, "epoch": progress.pass_number, "split": split}
        self._pending += (json.dumps(finite({**place, **figures})) + "\n").encode()
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
            if not self._told:
                self._say(f"warning: {self.path} not written ({error.strerror}): trying again")
            self._told = True


class FactsRecord(Callback):
    """Keeps how far a training has come, for the summary of one that fails."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def on_start(self, plan: Plan) -> None:
        first = {"epochs": plan.first_step // plan.steps_per_epoch, "steps": plan.first_step}
        self._facts.update(first)

    def on_tick(self, progress: Progress) -> None:
        self._facts.update({"epochs": progress.epoch, "steps": progress.step})

    def on_log(self, progress: Progress, figures: Metrics) -> None:
        self.on_tick(progress)
        self._facts["train"] = figures

    def on_evaluation(self, progress: Progress, split: str, figures: Metrics, best: bool) -> None:
        if split == "val" and best:
            self._facts["val"] = figures


def _holds(line: str, plan: Plan) -> bool:
    """Whether a line of an earlier process tells of what the checkpoint holds."""
    try:
        row: dict[str, Any] = json.loads(line)
        return bool(row["split"] != "test" and row["step"] <= plan.first_step)
    except (ValueError, TypeError, KeyError):  # cut short by a crash
        return False
