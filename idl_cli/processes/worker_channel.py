"""What the workers of a training tell the process that started them: JSON lines through a pipe.

The parent alone has the screen, the record and wandb; a worker has the model and its share of the
data. So the parent hears every event that a callback would, and what became of it all.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idl_core.training import Callback, Metrics, Plan, Progress

_LONGEST = 3000  # of a text: a line that fits into the pipe's buffer is written in one piece


class Channel:
    """A worker's end of the pipe."""

    def __init__(self, pipe: Path) -> None:
        self._descriptor = os.open(pipe, os.O_WRONLY)

    def send(self, kind: str, **content: Any) -> None:
        """Send one message."""
        os.write(self._descriptor, (json.dumps({"kind": kind, **content}) + "\n").encode())

    def say(self, text: str) -> None:
        """A line for the user."""
        self.send("say", text=text[:_LONGEST])

    def fail(self, error: Exception) -> None:
        """What ended the worker, where the user is to be told in one line."""
        self.send("error", type=type(error).__name__, text=str(error)[:_LONGEST])


class Telling(Callback):
    """Passes every event on."""

    def __init__(self, channel: Channel) -> None:
        self._send = channel.send

    def on_start(self, plan: Plan) -> None:
        self._send("on_start", plan=asdict(plan))

    def on_tick(self, progress: Progress) -> None:
        self._send("on_tick", progress=asdict(progress))

    def on_log(self, progress: Progress, figures: Metrics) -> None:
        self._send("on_log", progress=asdict(progress), figures=figures)

    def on_evaluation(self, progress: Progress, split: str, figures: Metrics, best: bool) -> None:
        self._send(
            "on_evaluation", progress=asdict(progress), split=split, figures=figures, best=best
        )

    def on_save(self, progress: Progress) -> None:
        self._send("on_save", progress=asdict(progress))

    def on_problem(self, problem: str) -> None:
        self._send("on_problem", problem=problem[:_LONGEST])


def pass_on(message: dict[str, Any], callback: Callback) -> None:
    """Tell a callback of an event that came through the pipe; other messages are left alone."""
    arguments = {name: value for name, value in message.items() if name != "kind"}
    if message["kind"] in (
        "on_start",
        "on_tick",
        "on_log",
        "on_evaluation",
        "on_save",
        "on_problem",
    ):
        for name, kind in (("progress", Progress), ("plan", Plan)):
            if name in arguments:
                arguments[name] = kind(**arguments[name])
        getattr(callback, message["kind"])(**arguments)
