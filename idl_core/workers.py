"""Worker processes on this machine: started by torch's elastic launcher, ended together, named.

The launcher gives each worker its rank and a rendezvous (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT). Workers are programs of their own, not pickled functions, so that it makes no
difference what started their parent: a terminal, a notebook, or another pool of processes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a worker runs. It is to end with the process that started it, which on Linux the kernel sees
# to: asked for before anything slow is imported, and checked, as the parent may be gone already.
# It ends without taking the process group down: torch 2.6 does that holding the interpreter's lock,
# which gloo's own thread may be waiting for to let its last tensors go, and neither ends.
_START = """
import ctypes, importlib, json, os, signal, sys, traceback
module, argument, parent, sys.path[:] = json.loads(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != parent:
    os._exit(1)
code = 0
try:
    importlib.import_module(module).main(argument)
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""
_TAIL_BYTES = 4000


class WorkerFailed(RuntimeError):
    """A worker ended with an error, and the others were ended: one line says which and why.

    Attributes:
        rank, exit_code: of the first that failed; the exit code is minus a signal's number.
        output: the end of what it wrote.
    """

    def __init__(self, rank: int, count: int, exit_code: int, cause: str, output: str) -> None:
        super().__init__(f"rank {rank} of {count} failed: {cause}")
        self.rank, self.exit_code, self.output = rank, exit_code, output


class WorkersStopped(RuntimeError):
    """A signal ended the workers. Whoever handled it before them has been given it."""


def run_workers(module: str, argument: str, count: int, folder: Path) -> None:
    """Run `module.main(argument)` in `count` processes and wait for them to end.

    Args:
        folder: takes what the workers write to stdout and stderr; its name is unique.

    Raises:
        WorkerFailed: one of them failed; none is left running.
        WorkersStopped: a signal ended them; or KeyboardInterrupt, where Ctrl-C means that here.
    """
    # Imported here: it is slow, and one process never needs it.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # the machine's own name may not be resolved, in a container say
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )
    try:
        with _quiet(), _signals(), _environment(TORCH_ELASTIC_SHUTDOWN_TIMEOUT="5"):
            argument = json.dumps([module, argument, os.getpid(), sys.path])
            elastic_launch(config, sys.executable)("-c", _START, argument)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: _blame(item[1].exitcode))
        output = _end_of_output(folder, rank)
        cause = _cause(failure, output)
        raise WorkerFailed(rank, count, failure.exitcode, cause, output) from None
    except SignalException as error:
        signal.raise_signal(error.sigval)
        raise WorkersStopped(f"{error.sigval.name} ended the {count} workers") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the launcher's own account to itself: the failure is told once, by the error."""
    logger = logging.getLogger("torch.distributed.elastic")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Put back who handles signals: in the main thread the launcher takes them, and keeps them."""
    taken = [getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "HUP", "QUIT")
             if hasattr(signal, f"SIG{name}")]  # fmt: skip
    before = {number: signal.getsignal(number) for number in taken}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*variables, "TORCHELASTIC_SIGNALS_TO_HANDLE")}
    os.environ.update({name: v for name, v in variables.items() if name not in os.environ})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _blame(exit_code: int) -> int:
    """Order of exit codes: one that was killed takes the others with it, which then fail for having
    lost their peer; and SIGTERM is how the launcher ends those that are left."""
    return 2 if exit_code == -signal.SIGTERM else int(exit_code >= 0)


def _end_of_output(folder: Path, rank: int) -> str:
    """The end of what a worker wrote, its errors if there are any."""
    for name in ("stderr.log", "stdout.log"):
        for path in (folder / "logs").glob(f"*/attempt_0/{rank}/{name}"):
            with contextlib.suppress(OSError):
                text = path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
                if text:
                    return text
    return ""


def _cause(failure: Any, output: str) -> str:
    """The failure in a line: the signal, or the last line of what the worker raised."""
    if failure.exitcode < 0:
        return f"it was ended by {failure.signal_name()} (exit code {failure.exitcode})"
    message = failure.message
    if isinstance(message, dict):
        message = message.get("message", message)
    told = [line for line in (output, str(message)) if line.strip()]
    last = told[0].strip().splitlines()[-1] if told else "it said nothing"
    return f"{last} (exit code {failure.exitcode})"
