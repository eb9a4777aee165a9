"""The progress display: time left, and several processes on one terminal."""

from __future__ import annotations

import sys

import pytest

from idl_cli.display import progress
from idl_cli.display.progress import DrawnScreen, Screen, make_screen
from idl_core.training import Plan, Progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_the_time_left_leaves_the_compilation_of_kernels_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    screen = Screen()
    screen.on_start(Plan(total_steps=101, steps_per_epoch=101, first_step=0, batch_size=8))
    clock.now += 15  # the first step, with what is compiled for it
    screen.on_tick(Progress(step=1))
    assert screen.left(Progress(step=1)) == "?"
    for step in range(11, 42, 10):
        clock.now += 5
        screen.on_tick(Progress(step=step))
    assert screen.left(Progress(step=41)) == "0:30"  # 60 steps at half a second each


def test_jobs_beside_each_other_draw_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "draws", lambda stream: stream is sys.stderr)
    assert isinstance(make_screen(0), DrawnScreen)
    assert not isinstance(make_screen(0, beside_others=True), DrawnScreen)
