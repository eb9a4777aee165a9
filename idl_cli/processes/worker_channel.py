"""What workers report to the process that started them: JSON lines through a pipe.

The parent alone has the screen and the loggers; a worker has the model and its share of the data.
So every event of a worker's callback is sent, and replayed to the callback of the parent.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idl_core.training import Callback, Metrics, Plan, Progress

_LONGEST = 3000  # of a text: a line that fits into the pipe's buffer is written in one piece


class WorkerChannel:
    """A worker's end of the pipe."""

    def __init__(self, pipe: Path) -> None:
        self._descriptor = os.open(pipe, os.O_WRONLY)

    def send(self, kind: str, **content: Any) -> None:
        """Send one message."""
        os.write(self._descriptor, (json.dumps({"kind": kind, **content}) + "\n").encode())

    def say(self, text: str) -> None:
        """Send a line for the user."""
        self.send("say", text=text[:_LONGEST])

    def fail(self, error: Exception) -> None:
        """Send the error, one of ours, that ends the worker."""
        self.send("error", type=type(error).__name__, text=str(error)[:_LONGEST])


class SendingCallback(Callback):
    """Sends every event through a channel."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._send = channel.send

    def on_start(self, plan: Plan) -> None:
        self._send("on_start", plan=asdict(plan))

    def on_tick(self, progress: Progress) -> None:
        self._send("on_tick", progress=asdict(progress))

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self._send("on_log", progress=asdict(progress), metrics=metrics)

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        self._send(
            "on_evaluation", progress=asdict(progress), split=split, metrics=metrics, best=best
        )

    def on_save(self, progress: Progress) -> None:
        self._send("on_save", progress=asdict(progress))

    def on_problem(self, problem: str) -> None:
        self._send("on_problem", problem=problem[:_LONGEST])


def replay(message: dict[str, Any], callback: Callback) -> None:
    """Call a callback with an event that came through the pipe; other messages are left alone."""
    arguments = {name: value for name, value in message.items() if name != "kind"}
    if message["kind"].startswith("on_"):
        for name, kind in (("progress", Progress), ("plan", Plan)):
            if name in arguments:
                arguments[name] = kind(**arguments[name])
        getattr(callback, message["kind"])(**arguments)
