"""Running a job of `ADMMMultiGPUSolver` in worker processes, and telling of their progress."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from idl_core.sim.solvers.report import OnProgress, SolveProgress
from idl_core.workers import run_workers


def launch(
    folder: Path, job: dict[str, Any], processes: int, on_progress: OnProgress | None
) -> None:
    """Run the job in `folder` with that many worker processes, and wait for them to end.

    Raises:
        RuntimeError: a worker failed, or a signal came; all have been ended.
    """
    (folder / "job.json").write_text(json.dumps(job))
    finished, raised = threading.Event(), list[BaseException]()

    def watch() -> None:
        try:
            _watch(folder, finished, on_progress)
        except BaseException as error:
            raised.append(error)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run_workers("idl_core.sim.solvers.admm_worker", str(folder), processes, folder)
    finally:
        finished.set()
        watcher.join()
    if raised:
        raise raised[0]


def _watch(folder: Path, finished: threading.Event, on_progress: OnProgress | None) -> None:
    """Pass on what the workers write of their progress, the slowest rank's."""
    told: dict[Path, str] = {}
    while on_progress is not None and not finished.wait(0.25):
        for path in folder.glob("progress_*.json"):
            text = path.read_text()
            if told.get(path) != text:
                told[path] = text
                said = json.loads(text)
                on_progress(
                    SolveProgress(said["block"], said["rows"], 0, said["iteration"], said["worst"])
                )
