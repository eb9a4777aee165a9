"""metrics.jsonl: every figure of a run, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from idl_cli.run_directory import finite, write_whole
from idl_core.training.callbacks import Callback, Figures, Plan, Progress


class MetricsRecord(Callback):
    """Writes each report as `{"step", "epoch", "split", <figures>}`, at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def on_start(self, plan: Plan) -> None:
        """Begin, or go on after the step of the checkpoint: what came later will come again."""
        if self.path.exists():
            kept = [
                line for line in self.path.read_text("utf-8").splitlines() if _holds(line, plan)
            ]
            write_whole(self.path, "".join(f"{line}\n" for line in kept))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def on_log(self, progress: Progress, figures: Figures) -> None:
        self.write(progress, "train", figures)

    def on_evaluation(self, progress: Progress, split: str, figures: Figures, best: bool) -> None:
        self.write(progress, split, figures)

    def write(self, progress: Progress, split: str, figures: Figures) -> None:
        """Append one line."""
        assert self._file is not None, "on_start comes first"
        place = {"step": progress.step, "epoch": progress.pass_number, "split": split}
        self._file.write(json.dumps(finite({**place, **figures})) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _holds(line: str, plan: Plan) -> bool:
    """Whether a line of an earlier process tells of what the checkpoint holds."""
    try:
        row: dict[str, Any] = json.loads(line)
        return bool(row["split"] != "test" and row["step"] <= plan.first_step)
    except (ValueError, TypeError, KeyError):  # cut short by a crash
        return False
