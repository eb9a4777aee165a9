"""Whether rows are in the order of time: turned round, refused, or their gaps said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from ..errors import DatasetError
from .times import Times

_LONGER = 1.5  # times the usual step: a gap
_UNEVEN = 0.25  # of the steps are gaps: there is no usual one
_UNITS = ((86400.0, "day"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def likeliest(readings: Sequence[Times]) -> Times:
    """Of the readings of the same cells the one that is most nearly in order."""

    def disorder(times: Times) -> tuple[int, int]:
        steps = np.diff(times.seconds)
        wrong = min(int((steps <= 0).sum()), int((steps >= 0).sum()) + 1)
        return wrong, len(_gaps(times)[0])

    return min(readings, key=disorder)


def order_of_time(
    path: Path,
    times: Times,
    lines: Sequence[int],
    groups: Callable[[], list[str]],
    notes: list[str],
) -> bool:
    """Whether the rows are to be turned round, the newest being first.

    groups: columns that may tell several series apart, for the message

    Raises DatasetError naming the row where they are in no order, or one occurs twice.
    """
    steps = np.diff(times.seconds)
    if len(steps) and (steps < 0).all():
        notes.append(
            f"column '{times.name}' falls, from {times.texts[0]} to {times.texts[-1]}: the rows "
            "are taken in the order of time"
        )
    elif (steps <= 0).any():
        raise _disorder(path, times, steps, lines, groups())
    else:
        notes += _said_of_gaps(times)
        return False
    notes += _said_of_gaps(times)
    return True


def _disorder(
    path: Path, times: Times, steps: np.ndarray, lines: Sequence[int], groups: Sequence[str]
) -> DatasetError:
    """What is wrong at the first step that is not forward."""
    row = int((steps <= 0).argmax()) + 1  # counted from 0
    before, here = times.texts[row - 1], times.texts[row]
    where = f"{path}: column '{times.name}', row {row + 1} (line {lines[row]})"
    wrong = int((steps <= 0).sum())
    which = ""
    if groups:
        which = f"column '{groups[0]}' tells several series apart: keep the rows of one"
    if steps[row - 1] == 0:
        hint = which or "remove one, or the column"
        more = f" (as do {wrong - 1:,} more rows)" if wrong > 1 else ""
        return DatasetError(f"{where}: {here} occurs twice{more}: {hint}.")
    if which:
        hint = which
    elif wrong <= 3:
        hint = "are two series one below the other? Keep one, or sort the rows by time"
    else:
        hint = f"{wrong:,} rows are earlier than the one before: sort the rows by time"
    return DatasetError(f"{where}: {here} comes after {before}: {hint}.")


def groups_of(
    names: Sequence[str], cells: Sequence[Sequence[str]], seconds: np.ndarray
) -> list[str]:
    """Columns of few different words within each of which time goes forward."""
    found = []
    for name, column in zip(names, cells, strict=True):
        words = np.array(column)
        kinds = np.unique(words)
        if not 1 < len(kinds) <= max(2, len(words) // 3):
            continue
        if all((np.diff(seconds[words == kind]) > 0).all() for kind in kinds):
            found.append(name)
    return found


def _said_of_gaps(times: Times) -> list[str]:
    gaps, usual = _gaps(times)
    if not len(gaps):
        return []
    if len(gaps) > _UNEVEN * (len(times.seconds) - 1):
        return [f"the steps of column '{times.name}' are uneven: a row is a step, however long"]
    first = int(gaps[0])
    return [
        f"steps of column '{times.name}' that are longer than the usual {usual}: {len(gaps):,}, "
        f"first from {times.texts[first]} to {times.texts[first + 1]} (rows {first + 1} and "
        f"{first + 2}); windows go across them"
    ]


def _gaps(times: Times) -> tuple[np.ndarray, str]:
    """Rows behind which a step is longer than usual, and the usual step in words."""
    if len(times.seconds) < 3:
        return np.empty(0, int), ""
    if times.kind != "counts" and (months := _whole_months(times.seconds)) is not None:
        steps = np.abs(np.diff(months))
        usual = max(1.0, float(np.median(steps)))
        count = int(usual)
        word = "month" if count == 1 else f"{count} months"
    else:
        steps = np.abs(np.diff(times.seconds))
        usual = float(np.median(steps))
        word = f"{usual:g}" if times.kind == "counts" else _duration(usual)
    return np.nonzero(steps > _LONGER * usual)[0], word


def _whole_months(seconds: np.ndarray) -> np.ndarray | None:
    """Months since year 0 where every moment is at the same point of its month; None otherwise."""
    try:
        moments = [datetime(1970, 1, 1) + timedelta(seconds=float(each)) for each in seconds]
        following = [moment + timedelta(days=1) for moment in moments]
    except OverflowError:
        return None
    same_day = len({(moment.day, moment.time()) for moment in moments}) == 1
    ends = all(moment.day == 1 for moment in following)
    if not (same_day or ends):
        return None
    return np.array([12 * moment.year + moment.month for moment in moments])


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            count = seconds / size
            return f"{count:.4g} {unit}{'s' if unit == 'day' and count != 1 else ''}"
    return f"{seconds:.4g} s"
