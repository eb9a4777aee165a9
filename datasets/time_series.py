"""A column of the user's own CSV or Parquet file, as windows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Dataset
from .errors import DatasetError, close_match, reason, shortlist
from .series import fraction, rows_by_fraction, whole_number, windows
from .source import Request, Source

LOOK_BACK, TEST_FRACTION = 60, 0.2
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})


def _load(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    wanted = request.options.get("column")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DatasetError(f"{path} {what}: set data.path to a CSV or Parquet file.")
    read = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
    column, values = read(path, None if wanted is None else str(wanted))
    rows = _rows(request, len(values))
    look_back = whole_number(request, "look_back", LOOK_BACK)
    horizon = whole_number(request, "horizon", 1)
    if len(values) < look_back + horizon:
        raise DatasetError(
            f"{path}: column '{column}' has {len(values):,} rows, too few for look_back={look_back}"
            f" and horizon={horizon}: give a longer file or smaller windows."
        )
    return windows(request, values[: sum(rows)], column, look_back, horizon, rows)


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


def _read_csv(path: Path, wanted: str | None) -> tuple[str, np.ndarray]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            for mark, name in ((";", "semicolons"), ("\t", "tabs")):
                if len(header) == 1 and mark in header[0] and wanted != header[0]:
                    raise DatasetError(f"{path} has {name} between its columns: write commas.")
            index = _column(path, header, wanted)
            if wanted is None and _is_number(header[index]):
                raise DatasetError(
                    f"{path}: its first line ends in {header[index]}, a number, where the names of "
                    "the columns are looked for: put a line of names above it, or set "
                    f"data.column={header[index]} where that is a name."
                )
            values = [
                _number(path, header[index], row, reader.line_num, cells, index)
                for row, cells in enumerate(_rows_of_cells(path, header, reader), 1)
            ]
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not UTF-8 text: {reason(error)}; save it as UTF-8."
        ) from None
    except csv.Error as error:
        raise DatasetError(f"{path} is damaged or no CSV: {reason(error)}.") from None
    return header[index], np.array(values, dtype=np.float64)


def _rows_of_cells(
    path: Path, header: Sequence[str], lines: Iterable[list[str]]
) -> Iterator[list[str]]:
    """The rows: lines with something in them.

    More cells than names are refused, as each may be a part of the one before: a decimal comma
    would leave of every number what is before it. An empty line is a missing value where it is
    between the rows of a single column.
    """
    row, gap = 0, False
    for cells in lines:
        if not cells:
            gap = True
            continue
        row += 1
        if gap and len(header) == 1:
            raise DatasetError(f"{path}: an empty line before row {row}: fill it in or remove it.")
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DatasetError(
                f"{path}: row {row} has {len(cells)} cells, more than the {len(header)} of the "
                "line of names: commas separate cells, so that 1,5 is two; write 1.5."
            )
        yield cells


def _column(path: Path, header: Sequence[str], wanted: str | None) -> int:
    """Index of the wanted column, or of the last one."""
    if not header:
        raise DatasetError(f"{path} is empty: give a CSV with a line of column names.")
    if wanted is None:
        return len(header) - 1
    if header.count(wanted) > 1:
        raise DatasetError(f"{path} has {header.count(wanted)} columns '{wanted}': rename them.")
    if wanted not in header:
        raise DatasetError(
            f"{path} has no column '{wanted}'.{close_match(wanted, header)} "
            f"Choose from: {shortlist(header)}."
        )
    return header.index(wanted)


def _number(
    path: Path, column: str, row: int, line: int, cells: Sequence[str], index: int
) -> float:
    where = f"{path}: column '{column}', row {row} (line {line})"
    if index >= len(cells):
        raise DatasetError(f"{where}: the line ends before this column: fill it in.")
    text = cells[index].strip()
    if text.lower() in _MISSING:
        raise DatasetError(f"{where}: the value is missing: fill it in or remove the row.")
    try:
        value = float(text)
    except ValueError:
        raise DatasetError(f"{where}: '{text[:40]}' is not a number.") from None
    if not math.isfinite(value):
        raise DatasetError(f"{where}: '{text}' is not a finite number.")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, wanted: str | None) -> tuple[str, np.ndarray]:
    try:
        import pyarrow  # type: ignore[import-not-found,unused-ignore]
        from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DatasetError(
            f"{path}: reading Parquet needs pyarrow: pip install 'idl[parquet]', or give a CSV."
        ) from None
    try:
        header = parquet.read_schema(path).names
        column = header[_column(path, header, wanted)]
        cells: Any = parquet.read_table(path, columns=[column])[column]
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is damaged or no Parquet file: {reason(error)}.") from None
    if not (pyarrow.types.is_floating(cells.type) or pyarrow.types.is_integer(cells.type)):
        raise DatasetError(f"{path}: column '{column}' holds {cells.type}, not numbers.")
    values = np.asarray(cells.to_numpy(), dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise DatasetError(
            f"{path}: column '{column}', row {int(bad.argmax()) + 1}: the value is missing or not "
            "finite: fill it in or remove the row."
        )
    return column, values


TIME_SERIES = Source(
    help="your own series: path = a CSV or Parquet file, column = which one; works offline",
    load=_load,
    is_ready=lambda root: False,
    needs_path=True,
    options=("column", "look_back", "horizon", "test_fraction", "rows"),
)
