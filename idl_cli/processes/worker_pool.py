"""A pool of workers, one a device, and this process to pass on what they report."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from idl_cli import errors
from idl_cli.errors import RunFailed
from idl_cli.processes.devices import threads_of_each
from idl_cli.processes.worker_channel import replay
from idl_core.training import Callback
from idl_core.workers import WorkerFailed, run_workers

_POLL_SECONDS = 0.2
_SHOWN_LINES = 10  # of the output of a worker that failed


def run_pool(
    module: str,
    job: dict[str, Any],
    devices: Sequence[object],
    callback: Callback,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Run `module.main(folder)` in a worker for each device, with `job` in `<folder>/job.json`.

    A worker reports through a `WorkerChannel`, and stops when `<folder>/stop` appears.

    Args:
        job: plain values; `devices` and `threads` (for each worker, None: as they are) are added.
        callback, say: take what rank 0 reports.
        stop: true once the workers are to save and end; what it raises ends them at once.

    Returns: the outcome as plain values.
    Raises: what ended the training in the workers (InputError, RunFailed), or RunFailed with the
        rank, the exit code and the end of the output of a worker that died.
    """
    with tempfile.TemporaryDirectory(prefix="idl-workers-") as name:
        folder = Path(name)
        whole = job | {
            "devices": [str(device) for device in devices],
            "threads": threads_of_each(len(devices)),
        }
        (folder / "job.json").write_text(json.dumps(whole))
        pool = _Pool(module, folder, len(devices))
        try:
            pool.listen(callback, say, stop)
        except BaseException:
            pool.kill()
            raise
        finally:
            pool.close()
        return pool.outcome(say)


class _Pool:
    """The launcher, in a thread since the main one handles signals, and our end of the pipe."""

    def __init__(self, module: str, folder: Path, count: int) -> None:
        self._module, self._folder, self._count = module, folder, count
        os.mkfifo(folder / "events")
        # For writing too: the pipe stays open while no worker has it.
        self._pipe = os.open(folder / "events", os.O_RDWR)
        self._rest = b""
        self._pids: list[int] = []
        self._outcome: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            run_workers(self._module, str(self._folder), self._count, self._folder)
        except Exception as error:
            self._failure = error

    def listen(
        self, callback: Callback, say: Callable[[str], None], stop: Callable[[], bool]
    ) -> None:
        """Pass on what the workers report until they end; ask them to stop when `stop` says so."""
        ended = False
        while not ended:
            ended = not self._thread.is_alive()  # asked first: then all has been written
            if stop():
                (self._folder / "stop").touch()
            for message in self._messages():
                if message["kind"] == "say":
                    say(message["text"])
                else:
                    replay(message, callback)

    def kill(self) -> None:
        """End the workers at once, those too that are only just starting."""
        deadline = time.monotonic() + 30
        while self._thread.is_alive() and time.monotonic() < deadline:
            for _ in self._messages():
                pass
            for pid in self._pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._pipe)

    def outcome(self, say: Callable[[str], None]) -> dict[str, Any]:
        """What rank 0 sent at its end. Raises: see `run_pool`."""
        if self._error is not None:
            raise getattr(errors, self._error["type"])(self._error["text"])
        if isinstance(self._failure, WorkerFailed):
            for line in self._failure.output.splitlines()[-_SHOWN_LINES:]:
                say(f"  rank {self._failure.rank}: {line}")
            raise RunFailed(str(self._failure)) from None
        if self._failure is not None:
            raise self._failure
        if self._outcome is None:
            raise RunFailed("the workers ended without a result")
        return self._outcome

    def _messages(self) -> list[dict[str, Any]]:
        """Read the messages in the pipe, waiting a little where there are none."""
        ready, _, _ = select.select([self._pipe], [], [], _POLL_SECONDS)
        while ready:
            self._rest += os.read(self._pipe, 65536)
            ready, _, _ = select.select([self._pipe], [], [], 0)
        *lines, self._rest = self._rest.split(b"\n")
        messages = [json.loads(line) for line in lines]
        for message in messages:
            if message["kind"] == "pid":
                self._pids.append(message["pid"])
            elif message["kind"] == "outcome":
                self._outcome = message["outcome"]
            elif message["kind"] == "error" and self._error is None:
                self._error = message
        return messages
