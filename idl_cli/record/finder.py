"""Turning what a user typed for a run into a directory, or a line that says what was meant."""

from __future__ import annotations

from pathlib import Path

from idl_cli.errors import InputError, close_match
from idl_cli.record.reader import find_runs, is_run


def existing_run(typed: str, key: str = "run=") -> Path:
    """The run directory that was typed.

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
    """A hint at the run whose path or folder name is closest to a wrong one."""
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
