"""The table of runs, and how one value of a run is shown in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from idl_cli.display.tables import Column, metric_text
from idl_cli.record.query import as_text
from idl_cli.record.reader import COLUMN_VALUES, MISSING, RunRecord

METRIC_SPLITS = ("train", "val", "test", "sim")
_MEASURED = ("epochs", "steps", "parameters", "wall_s", "best_step")


def run_columns(runs: Sequence[RunRecord], asked: Sequence[str] = ()) -> list[Column]:
    """The columns of the table: the usual ones, and those keys `asked` for that these lack."""
    columns = [
        Column("run", [str(run.path) for run in runs]),
        Column("status", [run.status for run in runs], spare=3),
        _column("model", runs, spare=4),
        _column("data", runs, spare=5),
        _overrides(runs),
        _column("epochs", runs, spare=6),
        _headline("val", runs, spare=2),
        _headline("test", runs),
        _column("parameters", runs, spare=8),
        Column("wall", [_duration(run.value("wall")) for run in runs], number=True, spare=7),
        Column("started", [run.started for run in runs], spare=9),
    ]
    headlines = {column.name.replace(" ", ".") for column in columns}
    shown = {*COLUMN_VALUES, *headlines, "epochs", "parameters", "wall_s"}
    return columns + [_column(key, runs) for key in asked if key not in shown]


def _overrides(runs: Sequence[RunRecord]) -> Column:
    """What was typed; where there is little room, only that in which the runs differ."""
    typed = [run.overrides for run in runs]
    shared = set(typed[0]).intersection(*typed[1:]) if len(runs) > 1 else set()
    whole, brief = (
        [" ".join(word for word in words if word not in left_out) for words in typed]
        for left_out in (set[str](), shared)
    )
    return Column("overrides", whole, spare=1, wraps=True, brief=brief if any(brief) else None)


def _column(key: str, runs: Sequence[RunRecord], spare: int = 0) -> Column:
    values = [run.value(key) for run in runs]
    numbers = all(value is MISSING or isinstance(value, int | float) for value in values)
    return Column(key, [cell(key, value) for value in values], numbers, spare)


def _headline(split: str, runs: Sequence[RunRecord], spare: int = 0) -> Column:
    """A split's headline metric; the metric is named in the head where all runs share it."""
    found = [run.headline(split) for run in runs]
    names = {name for name, _ in found if name}
    if len(names) <= 1:
        cells = [_metric(value) for _, value in found]
        return Column(" ".join([split, *names]), cells, number=True, spare=spare)
    cells = [f"{name} {_metric(value)}" if name else "" for name, value in found]
    return Column(split, cells, number=True, spare=spare)


def cell(key: str, value: Any) -> str:
    """A value as a table shows it: a metric rounded, a setting as it was set, else nothing."""
    if value is MISSING:
        return ""
    measured = key in _MEASURED or key.partition(".")[0] in METRIC_SPLITS
    return _metric(value) if measured else as_text(value)


def _metric(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is MISSING else as_text(value)
    if isinstance(value, int):
        return f"{value:,}"
    return metric_text(value)


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
