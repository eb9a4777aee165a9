"""A column of the user's own CSV or Parquet file, as windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..dataset import Dataset
from ..errors import DatasetError, shortlist
from ..options import fraction, whole_number
from ..source import Request, Source
from .numbers import MISSING, column_of_numbers, is_number
from .order import groups_of, likeliest, order_of_time
from .parquet import open_parquet
from .table import Table, read_table
from .times import find_times, looks_like_times, read_times
from .totals import check_total_value, check_total_words
from .windows import Series, rows_by_fraction, windows

LOOK_BACK, TEST_FRACTION = 60, 0.2


def _load(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    wanted = request.options.get("column")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DatasetError(f"{path} {what}: set data.path to a CSV or Parquet file.")
    series = _read(path, None if wanted is None else str(wanted))
    rows = _rows(request, len(series.values))
    look_back = whole_number(request, "look_back", LOOK_BACK)
    horizon = whole_number(request, "horizon", 1)
    if len(series.values) < look_back + horizon:
        raise DatasetError(
            f"{path}: column '{series.column}' has {len(series.values):,} rows, too few for "
            f"look_back={look_back} and horizon={horizon}: give a longer file or smaller windows."
        )
    return windows(request, series.first(sum(rows)), look_back, horizon, rows)


def _rows(request: Request, count: int) -> tuple[int, int, int]:
    """Rows of train, val and test: as given by `rows`, or by fractions."""
    given = request.options.get("rows")
    if given is None:
        test_fraction = fraction(request, "test_fraction", TEST_FRACTION)
        return rows_by_fraction(count, request.val_fraction, test_fraction)
    try:
        train, val, test = (int(number) for number in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        train, val, test = -1, -1, -1
    if min(train, test) < 1 or val < 0:
        raise DatasetError(
            f"{request.name}: rows={given}: give three numbers of rows, train, val and test, "
            "such as [8640,2880,2880]; val may be 0."
        )
    if train + val + test > count:
        raise DatasetError(
            f"{request.path}: has {count:,} rows, fewer than rows={[train, val, test]} add up to "
            f"({train + val + test:,})."
        )
    return train, val, test


def _read(path: Path, wanted: str | None) -> Series:
    """The column `wanted`, or the last, in the order of time."""
    numbers = None
    if path.suffix.lower() in (".parquet", ".pq"):
        table, numbers = open_parquet(path)
    else:
        table = read_table(path)
    index = _value_column(table, wanted)
    name = table.header[index]
    found = find_times(table, index)
    indices = (index, *(found.indices if found else ()))
    columns = table.columns(indices)
    if not len(columns):
        raise DatasetError(f"{path} has a line of names and no rows.")
    notes = list(table.notes)
    if wanted is None:
        notes += _said_of_choice(table, indices)
    check_total_words(path, columns)
    times = None
    if found is not None:
        times = likeliest(read_times(table, found, columns, range(1, len(indices))))
    elif looks_like_times(table, index):
        notes.append("no column of dates is recognised: rows are taken in the order of the file")
    if numbers is None:
        values = column_of_numbers(table, index, columns, columns.cells[0], notes)
    else:
        values = numbers(index)
    check_total_value(path, name, values, columns)
    if times is None:
        return Series(values, name, tuple(notes))
    seconds = times.seconds

    def groups() -> list[str]:
        others = [i for i in range(len(table.header)) if i not in indices]
        return groups_of([table.header[i] for i in others], table.columns(others).cells, seconds)

    falls = order_of_time(path, times, columns.lines, groups, notes)
    return Series(values[::-1] if falls else values, name, tuple(notes))


def _value_column(table: Table, wanted: str | None) -> int:
    """Index of the wanted column, or of the last one."""
    if wanted is not None:
        return table.index(wanted)
    last = table.header[-1]
    if is_number(last):
        raise DatasetError(
            f"{table.path}: its first line ends in {last}, a number, where the names of the "
            "columns are looked for: put a line of names above it, or set "
            f"data.column={last} where that is a name."
        )
    cell = table.first[-1]
    others = _of_numbers(table)
    if others and not is_number(cell) and cell.lower() not in MISSING:
        raise DatasetError(
            f"{table.path}: column '{last}', row 1: '{cell[:40]}' is not a number, and the last "
            f"column is taken where none is named: choose one by data.column ({shortlist(others)})."
        )
    return len(table.header) - 1


def _of_numbers(table: Table) -> list[str]:
    """Names of the columns whose first cell is a number."""
    return [name for name, cell in zip(table.header, table.first, strict=True) if is_number(cell)]


def _said_of_choice(table: Table, taken: Sequence[int]) -> list[str]:
    """What is said where the column was not named and another could have been meant.

    taken: of the value and of the times
    """
    others = [name for index, name in enumerate(table.header)
              if index not in taken and is_number(table.first[index])]  # fmt: skip
    if not others:
        return []
    return [
        f"column '{table.header[taken[0]]}', the last, is predicted: data.column chooses another "
        f"({shortlist(others)})"
    ]


TIME_SERIES = Source(
    help="your own series: path = a CSV or Parquet file, column = which one; works offline",
    load=_load,
    is_ready=lambda root: False,
    kind="series",
    needs_path=True,
    options=("column", "look_back", "horizon", "test_fraction", "rows"),
)
