"""When each row of a table was: columns of dates, of times of day, of years and months, of counts.

The same cells may have several readings (1/2/2020); which one is meant, the order of rows shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from ..errors import DatasetError
from .numbers import MISSING, PLAIN
from .table import Columns, Table

Reader = Callable[[str], float]
"""A cell in seconds. Raises ValueError (OverflowError) where it is none."""

_EPOCH = datetime(1970, 1, 1)
_CLOCK = r"(\d{1,2})[:.h](\d{2})(?:[:.](\d{2})(?:[.,](\d{1,9}))?)?\s*([AaPp]\.?[Mm]\.?)?"
_CLOCK_ALONE = re.compile(_CLOCK, re.ASCII)
_THREE = re.compile(
    rf"(\d{{1,4}})([/.\- ])(\d{{1,2}})\2(\d{{1,4}})\.?(?:[T ,;]+{_CLOCK})?", re.ASCII
)
_MONTH = re.compile(r"(\d{4})[-/](\d{1,2})|(\d{1,2})[-/](\d{4})", re.ASCII)
_QUARTER = re.compile(r"(\d{4})[-/ ]?[Qq]([1-4])|[Qq]([1-4])[-/ ]?(\d{4})", re.ASCII)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}.*|\d{4}-?W\d{2}.*|\d{8}T\d+.*", re.ASCII)
_COMPACT = re.compile(r"(?:19|20)\d{6}", re.ASCII)
_NAMED = re.compile(r".*(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*", re.IGNORECASE)
_COUNTS = frozenset(
    {"time", "timestamp", "date", "datetime", "ts", "epoch", "unix", "unixtime", "unix_time", "t",
     "index", "step", "no", "no.", "#", "", "unnamed: 0", "seconds", "time_s", "year"}
)  # fmt: skip
_PARTS = {
    "year": "year", "jahr": "year", "month": "month", "mnth": "month", "monat": "month",
    "day": "day", "tag": "day", "hour": "hour", "hr": "hour", "stunde": "hour",
    "minute": "minute", "min": "minute", "second": "second", "sec": "second",
}  # fmt: skip


@dataclass(frozen=True)
class TimeColumns:
    """The columns that say when a row was.

    kind: "dates" (a column, and with it one of the time of day), "parts" (year, month, …) or
        "counts" (seconds, an index)
    """

    indices: tuple[int, ...]
    kind: str
    name: str


@dataclass(frozen=True)
class Times:
    """When each row was: `seconds` (rows,), float64, and how its cells say so."""

    seconds: np.ndarray
    texts: list[str]
    name: str
    kind: str


def find_times(table: Table, value: int) -> TimeColumns | None:
    """The columns beside the value's that say when a row was; None where none is recognised."""
    others = [index for index in range(len(table.header)) if index != value]
    names = {index: table.header[index].casefold() for index in others}
    dates = [index for index in others if _readers(table.first[index], names[index])]
    if dates:
        found = [dates[0]]
        if not re.search(r"\d[:h]\d", table.first[dates[0]]):
            found += [index for index in others if index not in dates
                      and _clock_reader(table.first[index], names[index])][:1]  # fmt: skip
        return TimeColumns(tuple(found), "dates", " and ".join(table.header[i] for i in found))
    parts = {_PARTS[name]: index for index, name in reversed(names.items()) if name in _PARTS}
    ordered = [parts[part] for part in ("year", "month", "day", "hour", "minute", "second")
               if part in parts]  # fmt: skip
    if "year" in parts and len(ordered) > 1:
        return TimeColumns(tuple(ordered), "parts", ", ".join(table.header[i] for i in ordered))
    for index in others:
        if names[index] in _COUNTS and PLAIN.fits(table.first[index]):
            return TimeColumns((index,), "counts", table.header[index])
    return None


def looks_like_times(table: Table, value: int) -> bool:
    """Whether a column beside the value's holds neither numbers nor what is recognised."""
    return any(
        index != value and cell and not PLAIN.fits(cell) for index, cell in enumerate(table.first)
    )


def read_times(
    table: Table, found: TimeColumns, columns: Columns, at: Sequence[int]
) -> list[Times]:
    """Every reading of the time columns that all rows allow, at least one.

    at: where in `columns` the time columns are. Raises DatasetError naming the row that none reads.
    """
    cells = [columns.cells[position] for position in at]
    texts = [" ".join(row) for row in zip(*cells, strict=True)]
    if found.kind == "parts":
        names = [_PARTS[table.header[index].casefold()] for index in found.indices]
        readers: list[Reader] = [lambda text: _seconds_of_parts(names, text.split(" "))]
    elif found.kind == "counts":
        readers = [_count]
    else:
        first = [column[0] for column in cells]
        readers = _readers(first[0], table.header[found.indices[0]].casefold())
        if len(cells) > 1:
            clock = _clock_reader(first[1], table.header[found.indices[1]].casefold())
            assert clock is not None  # find_times has seen to it
            dates, clocks = cells
            return _all_read(table, found, columns, [
                [_sum(reader, clock, date, time) for date, time in zip(dates, clocks, strict=True)]
                for reader in readers
            ], texts)  # fmt: skip
    readings = [[_try(reader, text) for text in texts] for reader in readers]
    return _all_read(table, found, columns, readings, texts)


def _all_read(
    table: Table,
    found: TimeColumns,
    columns: Columns,
    readings: list[list[float | None]],
    texts: list[str],
) -> list[Times]:
    complete = [reading for reading in readings if None not in reading]
    if complete:
        return [Times(np.array(reading, np.float64), texts, found.name, found.kind)
                for reading in complete]  # fmt: skip
    row = max(reading.index(None) for reading in readings)
    where = f"{table.path}: column '{found.name}', row {row + 1} (line {columns.lines[row]})"
    if texts[row].strip().lower() in MISSING:
        raise DatasetError(f"{where}: the date is missing: fill it in or remove the row.")
    raise DatasetError(
        f"{where}: '{texts[row][:40]}' is not written like '{texts[0][:40]}' of the first row: "
        "write it so, or remove the row if it is none of the series."
    )


def _try(reader: Reader, text: str) -> float | None:
    try:
        return reader(text)
    except (ValueError, OverflowError):
        return None


def _sum(date: Reader, clock: Reader, day: str, time: str) -> float | None:
    seconds = _try(date, day), _try(clock, time)
    return None if seconds[0] is None or seconds[1] is None else seconds[0] + seconds[1]


def _readers(text: str, name: str) -> list[Reader]:
    """The ways to read a column of dates whose first cell is `text`; none where it is no date."""
    readers: list[Reader] = []
    if _ISO.fullmatch(text) or (name in _COUNTS and _COMPACT.fullmatch(text)):
        readers = [_iso]
    elif _THREE.fullmatch(text):
        readers = [_three("YMD"), _three("DMY"), _three("MDY")]
    elif _MONTH.fullmatch(text):
        readers = [_month]
    elif _QUARTER.fullmatch(text):
        readers = [_quarter]
    elif _NAMED.fullmatch(text) and re.search(r"\d", text):
        readers = [_named]
    return [reader for reader in readers if _try(reader, text) is not None]


def _seconds(moment: datetime) -> float:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH).total_seconds()


def _iso(text: str) -> float:
    return _seconds(datetime.fromisoformat(text))


def _three(order: str) -> Reader:
    """Day, month and year as numbers in the given order, and the time of day where it is there."""

    def read(text: str) -> float:
        match = _THREE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        parts = dict(zip(order, (match[1], match[3], match[4]), strict=True))
        if len(parts["Y"]) not in (2, 4) or max(len(parts["M"]), len(parts["D"])) > 2:
            raise ValueError(text)
        year = int(parts["Y"])
        if len(parts["Y"]) == 2:
            year += 2000 if year < 70 else 1900
        day = datetime(year, int(parts["M"]), int(parts["D"]))
        clock = _clock(match.groups()[4:]) if match[5] else 0.0
        return _seconds(day) + clock

    return read


def _clock(parts: Sequence[str | None]) -> float:
    """Seconds since midnight of hour, minute, second, fraction, and a.m. or p.m."""
    hour, minute, second = (int(part or 0) for part in parts[:3])
    if parts[4]:
        hour = hour % 12 + (12 if parts[4][0] in "Pp" else 0)
    if hour > 24 or minute > 59 or second > 60:
        raise ValueError(parts)
    return 3600.0 * hour + 60 * minute + second + float(f"0.{parts[3] or 0}")


def _clock_reader(text: str, name: str) -> Reader | None:
    """How to read a column of the time of day whose first cell is `text`; None: it is none."""
    if _PARTS.get(name) == "hour" and PLAIN.fits(text):
        return lambda cell: 3600.0 * float(cell)
    if PLAIN.fits(text) or not _CLOCK_ALONE.fullmatch(text):
        return None

    def read(cell: str) -> float:
        match = _CLOCK_ALONE.fullmatch(cell)
        if match is None:
            raise ValueError(cell)
        return _clock(match.groups())

    return read


def _month(text: str) -> float:
    match = _MONTH.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return _seconds(datetime(int(match[1] or match[4]), int(match[2] or match[3]), 1))


def _quarter(text: str) -> float:
    match = _QUARTER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return _seconds(datetime(int(match[1] or match[4]), 3 * int(match[2] or match[3]) - 2, 1))


def _named(text: str) -> float:
    """A date with the name of its month."""
    from dateutil import parser  # of all the orders that people write them in

    if not _NAMED.fullmatch(text):
        raise ValueError(text)
    return _seconds(parser.parse(text, default=datetime(1970, 1, 1)))


def _seconds_of_parts(names: Sequence[str], cells: Sequence[str]) -> float:
    """Seconds of year, month, day, hour, minute and second, as far as they are there."""
    given = {"month": 1.0, "day": 1.0}
    given |= {name: float(cell) for name, cell in zip(names, cells, strict=True)}
    day = datetime(int(given["year"]), int(given["month"]), int(given["day"]))
    clock = timedelta(hours=given.get("hour", 0), minutes=given.get("minute", 0),
                      seconds=given.get("second", 0))  # fmt: skip
    return _seconds(day + clock)


def _count(text: str) -> float:
    if not PLAIN.fits(text):
        raise ValueError(text)
    return float(text)
