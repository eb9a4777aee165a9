"""The jobs of a sweep, read from its folder: launchers run them in other processes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from idl_cli.atomic_write import write_whole
from idl_cli.record.query import natural
from idl_cli.record.reader import MISSING, RunRecord, as_number
from idl_cli.record.run_directory import holds_run

HIGHER_IS_BETTER = ("accuracy", "r2")
_REFUSED = ".refused"
_SLASH = "%2F"  # in the name of a note
_LEVELS = 6  # of folders between a sweep and its jobs
# Other values of these make other targets, or count them in other units.
_DECIDE_THE_TARGETS = ("path", "column", "horizon", "tokenizer")


def read_jobs(folder: Path) -> list[RunRecord]:
    """The jobs in a sweep's folder, best first by the metric they name, failed ones last.

    Jobs whose metrics are not of the same thing stand group by group, see `measured`.
    """
    jobs = [RunRecord.read(path) for path in sorted(_job_folders(folder), key=_number)]
    groups = list(dict.fromkeys(map(measured, jobs)))
    return sorted(
        jobs, key=lambda job: (job.status != "completed", groups.index(measured(job)), _rank(job))
    )


def measured(job: RunRecord) -> tuple[str, ...]:
    """What a job's metric is of: jobs are ranked against each other where this is the same."""
    settings = (job.setting(f"data.{key}") for key in _DECIDE_THE_TARGETS)
    return (
        str(job.summary.get("ranked_by")),
        str(job.name_of("data")),
        *("" if value in (MISSING, None) else str(value) for value in settings),
    )


def _job_folders(folder: Path, levels: int = _LEVELS) -> Iterator[Path]:
    """The jobs' folders; `hydra.sweep.subdir=${model.name}/${seed}` puts them below others."""
    for path in folder.iterdir():
        if not path.is_dir() or path.name.startswith("."):
            continue
        if holds_run(path):
            yield path
        elif levels > 1:
            yield from _job_folders(path, levels - 1)


def job_name(job: Path, sweep: Path) -> str:
    """What a job is called: its folder as seen from the sweep's."""
    return job.relative_to(sweep).as_posix() if job.is_relative_to(sweep) else job.name


def note_refusal(job: Path, sweep: Path, error: str, exit_code: int) -> None:
    """Record the error of a job whose folder belongs to another run or is in use.

    The note stands in the sweep's folder, for the process that concludes it. Raises: OSError.
    """
    name = job_name(job, sweep)
    note = sweep / _REFUSED / name.replace("/", _SLASH)
    note.parent.mkdir(exist_ok=True)
    write_whole(note, json.dumps({"error": error, "exit_code": exit_code}))


def take_refusals(folder: Path) -> dict[str, dict[str, Any]]:
    """Read and remove the notes of `note_refusal`, by the name of the job."""
    found: dict[str, dict[str, Any]] = {}
    for note in sorted((folder / _REFUSED).glob("*"), key=_number):
        with contextlib.suppress(OSError, ValueError):
            found[note.name.replace(_SLASH, "/")] = json.loads(note.read_text("utf-8"))
        note.unlink()
    with contextlib.suppress(OSError):
        (folder / _REFUSED).rmdir()
    return found


def _rank(job: RunRecord) -> float:
    key = str(job.summary.get("ranked_by", ""))
    value = as_number(job.value(key))
    if value is None:
        return float("inf")
    return -value if key.rpartition(".")[2] in HIGHER_IS_BETTER else value


def _number(path: Path) -> Any:
    return natural(path.name)
