"""The end of a sweep: one table of all its jobs, best first, and an exit code that tells of all."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idl_cli.display.tables import Column, print_table
from idl_cli.record.reader import RunRecord, as_number
from idl_cli.record.run_directory import holds_run, write_whole

HIGHER_IS_BETTER = ("accuracy", "r2")
_REFUSED = ".refused"


def conclude_sweep(
    folder: Path, code: int, failures: Sequence[int], again: str | None, *, said: bool
) -> int:
    """Print the table of a sweep's jobs and its folder. Returns the sweep's exit code.

    The jobs are read from their summaries: launchers run them in other processes.

    Args:
        code: 129, 130 or 143 where a signal ended the sweep, 1 where its launcher failed, else 0.
        failures: exit codes of jobs that failed in this process.
        again: what is to be added to the command to go on with the sweep; None: nothing does.
        said: whether every failure was told when it happened: jobs of clusters write elsewhere.
    """
    refused = take_refusals(folder)
    jobs = [job for job in read_jobs(folder) if job.path.name not in refused]
    if jobs:
        print_table(job_columns(jobs))
    failed = {job.path.name: job.summary for job in jobs if job.status == "failed"} | refused
    for name, told in failed.items() if not said else ():
        print(f"job {name} failed: {told.get('error')}", file=sys.stderr)
    if not jobs and not failed:
        return code
    left = [job.path.name for job in jobs if job.status not in ("completed", "failed")]
    if left or code:
        what = f"{len(left)} of these jobs did not end: {', '.join(left[:10])}"
        print(
            (what if left else "the sweep was not run to its end")
            + (f"; the same command with {again} goes on" if again else ""),
            file=sys.stderr,
        )
    print(folder, flush=True)
    codes = {*failures, *(int(told.get("exit_code") or 1) for told in failed.values())}
    codes |= {1} if left else set()
    if code or not codes:
        return code
    return 2 if codes == {2} else 1


def read_jobs(folder: Path) -> list[RunRecord]:
    """The jobs in a sweep's folder, best first by the figure they name, failed ones last."""
    found = [path for path in folder.iterdir() if path.is_dir() and holds_run(path)]
    jobs = [RunRecord.read(path) for path in sorted(found, key=_number)]
    return sorted(jobs, key=lambda job: (job.status != "completed", _rank(job)))


def note_refusal(job: Path, error: str, exit_code: int) -> None:
    """Leave word of a job that may not touch its folder: another run's, or in use.

    Beside the folder: whoever concludes the sweep may be another process. Raises: OSError.
    """
    note = job.parent / _REFUSED / job.name
    note.parent.mkdir(exist_ok=True)
    write_whole(note, json.dumps({"error": error, "exit_code": exit_code}))


def take_refusals(folder: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a sweep that were refused, by name; their notes are removed."""
    found: dict[str, dict[str, Any]] = {}
    for note in sorted((folder / _REFUSED).glob("*"), key=_number):
        with contextlib.suppress(OSError, ValueError):
            found[note.name] = json.loads(note.read_text("utf-8"))
        note.unlink()
    with contextlib.suppress(OSError):
        (folder / _REFUSED).rmdir()
    return found


def job_columns(jobs: Sequence[RunRecord]) -> list[Column]:
    """Number, what sets each job apart, the figure it is ranked by, its test figures."""
    typed = [job.overrides for job in jobs]
    shared = set(typed[0]).intersection(*typed[1:]) if len(jobs) > 1 else set()
    keys = list(dict.fromkeys(w.split("=")[0] for words in typed for w in words if w not in shared))
    columns = [Column("job", [job.path.name for job in jobs], number=True)]
    for key in keys:
        cells = [_typed_value(words, key) for words in typed]
        columns.append(Column(key, cells, number=all(_is_number(cell) for cell in cells)))
    columns.append(Column("status", [_how_it_ended(job) for job in jobs]))
    wanted = [str(job.summary["ranked_by"]) for job in jobs if "ranked_by" in job.summary]
    tests = [name for job in jobs for name in job.summary.get("test") or ()]
    wanted += [f"test.{name}" for name in tests]
    for key in dict.fromkeys(wanted):
        cells = [_figure(job, key) for job in jobs]
        columns.append(Column(key.replace(".", " "), cells, number=True))
    columns.append(
        Column("wall", [f"{job.summary.get('wall_s') or 0:.1f} s" for job in jobs], number=True,
               spare=1)
    )  # fmt: skip
    return columns


def _how_it_ended(job: RunRecord) -> str:
    early = job.status == "completed" and job.summary.get("stopped_early")
    return "stopped early" if early else job.status


def _rank(job: RunRecord) -> float:
    key = str(job.summary.get("ranked_by", ""))
    value = as_number(job.value(key))
    if value is None:
        return float("inf")
    return -value if key.rpartition(".")[2] in HIGHER_IS_BETTER else value


def _number(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdecimal() else sys.maxsize, path.name)


def _figure(job: RunRecord, key: str) -> str:
    value = as_number(job.value(key))
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def _typed_value(words: Sequence[str], key: str) -> str:
    return next((word.partition("=")[2] for word in words if word.split("=")[0] == key), "")


def _is_number(text: str) -> bool:
    return not text or as_number(text) is not None
