"""The table that a sweep ends with: a row a job."""

from __future__ import annotations

from collections.abc import Sequence

from idl_cli.display.tables import Column, metric_text
from idl_cli.record.reader import RunRecord, as_number


def job_columns(jobs: Sequence[RunRecord]) -> list[Column]:
    """Number, the settings that differ, the metric that ranks the jobs, the test metrics."""
    typed = [job.overrides for job in jobs]
    shared = set(typed[0]).intersection(*typed[1:]) if len(jobs) > 1 else set()
    keys = list(dict.fromkeys(w.split("=")[0] for words in typed for w in words if w not in shared))
    columns = [Column("job", [job.path.name for job in jobs], number=True)]
    for key in keys:
        cells = [_typed_value(words, key) for words in typed]
        columns.append(Column(key, cells, number=all(_is_number(cell) for cell in cells)))
    data = [str(job.name_of("data")) for job in jobs]
    if len(set(data)) > 1 and "data" not in keys:
        columns.append(Column("data", data))
    columns.append(Column("status", [_how_it_ended(job) for job in jobs]))
    wanted = [str(job.summary["ranked_by"]) for job in jobs if "ranked_by" in job.summary]
    tests = [name for job in jobs for name in job.summary.get("test") or ()]
    wanted += [f"test.{name}" for name in tests]
    for key in dict.fromkeys(wanted):
        cells = [_metric(job, key) for job in jobs]
        columns.append(Column(key.replace(".", " "), cells, number=True))
    columns.append(
        Column("wall", [f"{job.summary.get('wall_s') or 0:.1f} s" for job in jobs], number=True,
               spare=1)
    )  # fmt: skip
    return columns


def _how_it_ended(job: RunRecord) -> str:
    early = job.status == "completed" and job.summary.get("stopped_early")
    return "stopped early" if early else job.status


def _metric(job: RunRecord, key: str) -> str:
    value = as_number(job.value(key))
    if value is None:
        return ""
    return metric_text(value)


def _typed_value(words: Sequence[str], key: str) -> str:
    return next((word.partition("=")[2] for word in words if word.split("=")[0] == key), "")


def _is_number(text: str) -> bool:
    return not text or as_number(text) is not None
