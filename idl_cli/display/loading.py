"""What `idl data prepare` shows of a data set's downloading and decoding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from idl_cli.display.terminal import draws


@contextmanager
def loading_shown() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a data set's own reports: bars on a terminal, one line a task where piped."""
    if not draws(sys.stdout):
        shown: set[str] = set()

        def line(what: str, done: int, total: int | None) -> None:
            if what not in shown:
                shown.add(what)
                print(what, flush=True)

        yield line
        return

    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}")
    with Progress(text, BarColumn(), TimeRemainingColumn(), transient=True) as screen:
        tasks: dict[str, TaskID] = {}

        def bar(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = screen.add_task(what, total=total)
            screen.update(tasks[what], completed=done)

        yield bar
