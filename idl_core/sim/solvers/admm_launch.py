"""Starting worker processes through torch's elastic launcher, and naming the one that failed."""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

from idl_core.sim.solvers.report import OnProgress, SolveProgress

# Ends without taking the process group down: torch 2.6 does that holding the interpreter's lock,
# which gloo's own thread may be waiting for to let its last tensors go, and neither ends.
_START = """
import json, os, sys, traceback
sys.path[:] = json.loads(sys.argv[2])
from idl_core.sim.solvers.admm_worker import main
code = 0
try:
    main(sys.argv[1])
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


def launch(
    folder: Path, job: dict[str, Any], processes: int, on_progress: OnProgress | None
) -> None:
    """Run the job in `folder` with that many worker processes, and wait for them to end.

    Raises:
        RuntimeError: a worker failed; the others have been ended.
    """
    # Imported here: it is slow, and a solve in one process never needs it.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    (folder / "job.json").write_text(json.dumps(job))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, finished, on_progress), daemon=True)
    watcher.start()
    quiet = logging.getLogger("torch.distributed.elastic")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # the failure is told once, by the error below
    try:
        arguments = ("-c", _START, str(folder), json.dumps(sys.path))
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RuntimeError(f"rank {rank} of {processes} failed: {_cause(failure)}") from None
    finally:
        quiet.setLevel(level)
        finished.set()
        watcher.join()


def _cause(failure: Any) -> str:
    """The failure in a line: the signal, or the last line of what the worker raised."""
    if failure.exitcode < 0:
        return f"it was ended by {failure.signal_name()}"
    message = failure.message
    if isinstance(message, dict):
        message = message.get("message", message)
    lines = str(message).strip().splitlines()
    return f"{lines[-1] if lines else 'no message'} (exit code {failure.exitcode})"


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
