"""Finding run directories: all below a folder, or the one that a user typed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from idl_cli.errors import InputError, close_match
from idl_cli.record.query import natural
from idl_cli.record.reader import RunRecord, config_text


def find_runs(folder: Path) -> list[RunRecord]:
    """All runs in `folder` and below, in order of their paths; `folder` itself may be one.

    A run's own folders are not searched, nor are hidden ones. Links to folders are followed, and
    what is reached twice (a link `latest`) counts once.
    """
    found = [RunRecord.read(path) for path in _run_folders(folder, set())]
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


def _run_folders(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
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
    folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    for entry in sorted(folders, key=lambda entry: (entry.is_symlink(), entry.name)):
        yield from _run_folders(folder / entry.name, seen)


def existing_run(typed: str, key: str = "run=") -> Path:
    """The run directory that was typed, checked to be one.

    Raises: InputError where it is none, naming the nearest run there is.
    """
    path = Path(typed).expanduser()
    if is_run(path):
        return path
    if path.is_dir():
        below = sorted(find_runs(path), key=lambda run: run.started)
        if below:
            newest = f"; the newest of the {len(below)} below it is {below[-1].path}"
            raise InputError(f"{key}{typed} is a folder of runs, not a run{newest}")
        lacks = "it has neither summary.json nor config.yaml"
        raise InputError(f"{key}{typed} is no run: {lacks}.{_near(path)}")
    if path.exists():
        hint = next((f" Its run is {up}" for up in path.parents if is_run(up)), "")
        raise InputError(f"{key}{typed} is a file, not a run directory.{hint}")
    raise InputError(f"{key}{typed}: there is no such folder.{_near(path)}")


def _near(path: Path) -> str:
    """A hint at the run whose path or folder name is closest to what was typed."""
    start = next((up for up in path.parents if up.is_dir()), Path())
    runs = find_runs(start if start != Path() else Path("runs"))
    if not runs:
        return " There are no runs here yet: idl train makes the first."
    by_name = {run.path.name: str(run.path) for run in runs}
    close = close_match(str(path), (str(run.path) for run in runs))
    if close:
        return close
    for name, whole in by_name.items():
        if close_match(path.name, [name]):
            return f" Did you mean '{whole}'?"
    newest = max(runs, key=lambda run: run.started)
    return f" The newest run is '{newest.path}'."
