"""Running a job of `ADMMMultiGPUSolver` in worker processes, and telling of their progress."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from idl_core.sim.solvers.problem.report import OnProgress, SolveProgress
from idl_core.workers import WorkerFailed, run_workers

# Files of a job's folder: what rank 0 tells of all ranks, and what asks it to stop.
PROGRESS, STOP = "progress.json", "stop"


def launch(
    folder: Path, job: dict[str, Any], processes: int, on_progress: OnProgress | None
) -> None:
    """Run the job in `folder` with that many worker processes, and wait for them to end.

    Args:
        on_progress: what it raises ends the workers, and is raised here.

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
            (folder / STOP).touch()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run_workers("idl_core.sim.solvers.distributed.worker", str(folder), processes, folder)
    except WorkerFailed:
        if not raised:
            raise
    finally:
        finished.set()
        watcher.join()
    if raised:
        raise raised[0]


def _watch(folder: Path, finished: threading.Event, on_progress: OnProgress | None) -> None:
    """Pass on what rank 0 writes."""
    told, path = "", folder / PROGRESS
    while on_progress is not None and not finished.wait(0.25):
        text = path.read_text() if path.exists() else ""
        if text != told:
            told = text
            on_progress(SolveProgress(**json.loads(text)))
