"""The state of the command that is running under Hydra, which jobs and callbacks report to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idl_cli.processes.stop_signals import SweepSignals


@dataclass
class Invocation:
    """One call of a command.

    Attributes:
        check: raises InputError where the configuration is wrong; called before anything is made.
        made: folders that Hydra makes for the job and that did not exist before, innermost first.
        sweep: folder of a multirun's jobs; None for a single run.
        error: what a single run raised: Hydra would report it in its own way.
        failures: exit codes of a sweep's jobs that failed in this process.
        signals: passed on to a pool of processes while it runs the jobs.
    """

    check: Callable[[dict[str, Any]], object]
    made: list[Path] = field(default_factory=list)
    sweep: Path | None = None
    error: BaseException | None = None
    failures: list[int] = field(default_factory=list)
    signals: SweepSignals = field(default_factory=SweepSignals)

    def will_make(self, folder: Path) -> None:
        """Remember which folders Hydra is about to make."""
        self.made = [each for each in (folder, *folder.parents) if not each.exists()]

    def remove_empty_folders(self) -> None:
        """Remove the folders that were made for jobs that never came to be."""
        folders = self.made
        if self.sweep is not None and self.sweep.is_dir():
            inside = [path.name for path in self.sweep.iterdir()]
            if inside == ["multirun.yaml"]:
                (self.sweep / "multirun.yaml").unlink()
                folders = [self.sweep, *folders]
        _remove_if_empty(folders)


_current: Invocation | None = None


def current() -> Invocation | None:
    """The invocation of this process; None in a process that a launcher started for jobs."""
    return _current


@contextlib.contextmanager
def invocation(check: Callable[[dict[str, Any]], object]) -> Iterator[Invocation]:
    """Make an invocation the current one, and clean up after it."""
    global _current
    _current = made = Invocation(check)
    try:
        yield made
    finally:
        _current = None
        made.signals.__exit__(None, None, None)
        made.remove_empty_folders()


def _remove_if_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
