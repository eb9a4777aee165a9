"""Finding run directories: all below a folder, or the one that a user typed."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from idl_cli.errors import InputError, close_match
from idl_cli.record.query import natural
from idl_cli.record.reader import RunRecord, config_text

# How far a hint at the nearest run is looked for. What was typed may be anywhere, `/` say.
_HINT_FOLDERS = 200
_HINT_SECONDS = 0.1
_HINT_LEVELS_UP = 3


class _Budget:
    """A number of folders and a time, after which a search ends with what it has found."""

    def __init__(self, folders: int | None = None, seconds: float | None = None) -> None:
        self._folders = folders
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.spent = False

    def take(self) -> bool:
        """Whether one more folder may be read."""
        if self._folders is not None:
            self._folders -= 1
            self.spent |= self._folders < 0
        if self._deadline is not None:
            self.spent |= time.monotonic() > self._deadline
        return not self.spent


def find_runs(folder: Path) -> list[RunRecord]:
    """All runs in `folder` and below, in order of their paths; `folder` itself may be one.

    A run's own folders are not searched, nor are hidden ones. Links to folders are followed, and
    what is reached twice (a link `latest`) counts once.
    """
    found = [RunRecord.read(path) for path in _run_folders(folder, set(), _Budget())]
    return sorted(found, key=lambda run: natural(str(run.path)))


def is_run(folder: Path, names: set[str] | None = None) -> bool:
    """Whether a folder is a run: it has a summary.json, or a config.yaml that a run wrote."""
    try:
        inside = {entry.name for entry in os.scandir(folder)} if names is None else names
    except OSError:
        return False
    if "summary.json" in inside:
        return True
    if "config.yaml" not in inside:
        return False
    # A folder of Hydra sources has a config.yaml too; only there is a list of defaults.
    return "overrides.yaml" in inside or not re.search(
        r"^defaults:", config_text(folder), re.MULTILINE
    )


def _hint_budget() -> _Budget:
    """What all searches for one hint may take together."""
    return _Budget(_HINT_FOLDERS, _HINT_SECONDS)


def _runs_nearby(folder: Path, budget: _Budget) -> tuple[list[RunRecord], bool]:
    """Runs in a folder and below, for a hint. Returns: them, and whether these are all."""
    return [RunRecord.read(path) for path in _run_folders(folder, set(), budget)], not budget.spent


def _run_folders(folder: Path, seen: set[tuple[int, int]], budget: _Budget) -> Iterator[Path]:
    if not budget.take():
        return
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
        identity = folder.stat()
    except OSError:  # not ours to read: the other runs are still worth a table
        return
    if (identity.st_dev, identity.st_ino) in seen:
        return
    seen.add((identity.st_dev, identity.st_ino))
    if is_run(folder, {entry.name for entry in entries}):
        yield folder
        return
    folders = [entry for entry in entries if not entry.name.startswith(".") and _is_folder(entry)]
    for entry in sorted(folders, key=lambda entry: (entry.is_symlink(), entry.name)):
        yield from _run_folders(folder / entry.name, seen, budget)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def existing_run(typed: str, key: str = "run=") -> Path:
    """The run directory that was typed, checked to be one.

    Raises: InputError where it is none, naming the nearest run there is.
    """
    try:
        path = Path(typed).expanduser()
        there = _what_is(path)
    except (OSError, RuntimeError, ValueError) as error:  # too long, another user's, no such user
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{key}{shortened(typed)}: it cannot be read ({reason})") from error
    if there == "run":
        return path
    if there == "folder":
        budget = _hint_budget()
        below, all_of_them = _runs_nearby(path, budget)
        if below:
            newest = max(below, key=lambda run: run.started).path
            which = f"of the {len(below)} below it" if all_of_them else "seen below it"
            raise InputError(
                f"{key}{typed} is a folder of runs, not a run; the newest {which} is {newest}"
            )
        lacks = "it has neither summary.json nor config.yaml"
        raise InputError(f"{key}{typed} is no run: {lacks}.{_near(path, budget)}")
    if there == "file":
        hint = next((f" Its run is {up}" for up in path.parents if is_run(up)), "")
        raise InputError(f"{key}{typed} is a file, not a run directory.{hint}")
    hint = _near(path, _hint_budget())
    raise InputError(f"{key}{shortened(typed)}: there is no such folder.{hint}")


def _what_is(path: Path) -> str:
    """ "run", "folder", "file" or "" for what is not there. Raises: OSError, ValueError."""
    if is_run(path):
        return "run"
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if not path.is_dir():
        return "file"
    os.scandir(path).close()  # what may not be read is not empty
    return "folder"


def _near(path: Path, budget: _Budget) -> str:
    """A hint at the run whose path or folder name is closest to what was typed.

    Nothing that goes wrong in looking for it is an error: it is only a hint.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        return _nearest(path, budget)
    return ""


def _nearest(path: Path, budget: _Budget) -> str:
    ups = [up for up in path.parents[:_HINT_LEVELS_UP] if up not in (Path(), Path(path.anchor))]
    start = next((up for up in ups if up.is_dir()), Path("runs"))
    runs, all_of_them = _runs_nearby(start, budget)
    if not runs:
        return " There are no runs here yet: idl train makes the first." if all_of_them else ""
    by_name = {run.path.name: str(run.path) for run in runs}
    close = close_match(str(path), (str(run.path) for run in runs))
    if close:
        return close
    for name, whole in by_name.items():
        if close_match(path.name, [name]):
            return f" Did you mean '{whole}'?"
    newest = max(runs, key=lambda run: run.started)
    return f" {'The newest run' if all_of_them else 'A run'} is '{newest.path}'."


def shortened(text: str) -> str:
    """What was typed, cut where it is too long for a line."""
    return text if len(text) <= 200 else text[:197] + "..."
