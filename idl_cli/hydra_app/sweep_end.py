"""The end of a sweep: one table of all its jobs, best first, and one exit code for all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from idl_cli.display.sweep_table import job_columns
from idl_cli.display.tables import print_table
from idl_cli.hydra_app.sweep_jobs import job_name, measured, read_jobs, take_refusals
from idl_cli.record.reader import RunRecord


def conclude_sweep(
    folder: Path, code: int, failures: Sequence[int], again: str | None, *, said: bool
) -> int:
    """Print the table of a sweep's jobs and its folder. Returns the sweep's exit code.

    The jobs are read from their summaries: launchers run them in other processes.

    Args:
        code: 129, 130 or 143 where a signal ended the sweep, 1 where its launcher failed, else 0.
        failures: exit codes of jobs that failed in this process.
        again: what is to be added to the command to go on with the sweep; None: nothing does.
        said: whether every failure was shown when it happened: jobs of clusters write elsewhere.
    """
    refused = take_refusals(folder)
    jobs = [job for job in read_jobs(folder) if job_name(job.path, folder) not in refused]
    if jobs:
        print_table(job_columns(jobs))
        _say_what_is_not_ranked(jobs)
    failed = {job_name(job.path, folder): job.summary for job in jobs if job.status == "failed"}
    failed |= refused
    for name, note in failed.items() if not said else ():
        print(f"job {name} failed: {note.get('error')}", file=sys.stderr)
    if not jobs and not failed:
        return code
    left = [job_name(job.path, folder) for job in jobs if job.status not in ("completed", "failed")]
    if left or code:
        what = f"{len(left)} of these jobs did not end: {', '.join(left[:10])}"
        print(
            (what if left else "the sweep was not run to its end")
            + (f"; the same command with {again} goes on" if again else ""),
            file=sys.stderr,
        )
    print(folder, flush=True)
    codes = {*failures, *(int(note.get("exit_code") or 1) for note in failed.values())}
    codes |= {1} if left else set()
    if code or not codes:
        return code
    return 2 if codes == {2} else 1


def _say_what_is_not_ranked(jobs: Sequence[RunRecord]) -> None:
    """Say it where the jobs' metrics are not of the same data, column, horizon, ..."""
    groups = list(dict.fromkeys(measured(job) for job in jobs if job.status == "completed"))
    if len(groups) < 2:
        return
    differing = [values for values in zip(*groups, strict=True) if len(set(values)) > 1]
    named = ", ".join(dict.fromkeys(value for value in differing[0] if value))
    print(
        f"these jobs are not all of the same data ({named}): each group is ranked by itself",
        file=sys.stderr,
    )
