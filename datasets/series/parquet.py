"""A column of a Parquet file, through pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError, close_match, reason, shortlist
from .order import order_of_time
from .times import Times
from .windows import Series


def read_parquet(path: Path, wanted: str | None) -> Series:
    """The column `wanted`, or the last, in the order of the file's column of dates.

    Raises DatasetError where pyarrow is absent, or naming the row that has no number.
    """
    try:
        import pyarrow  # type: ignore[import-not-found,unused-ignore]
        from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DatasetError(
            f"{path}: reading Parquet needs pyarrow: pip install 'idl[parquet]', or give a CSV."
        ) from None
    try:
        schema = parquet.read_schema(path)
        column = _column(path, schema.names, wanted)
        dates = [field.name for field in schema if field.name != column
                 and pyarrow.types.is_temporal(field.type)][:1]  # fmt: skip
        table: Any = parquet.read_table(path, columns=[column, *dates])
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is damaged or no Parquet file: {reason(error)}.") from None
    kind = table[column].type
    if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)):
        raise DatasetError(f"{path}: column '{column}' holds {kind}, not numbers.")
    values = np.asarray(table[column].to_numpy(), dtype=np.float64)
    if not len(values):
        raise DatasetError(f"{path}: column '{column}' has no rows.")
    bad = ~np.isfinite(values)
    if bad.any():
        raise DatasetError(
            f"{path}: column '{column}', row {int(bad.argmax()) + 1}: the value is missing or not "
            "finite: fill it in or remove the row."
        )
    notes: list[str] = []
    numbers = (pyarrow.types.is_floating, pyarrow.types.is_integer)
    others = [field.name for field in schema
              if field.name != column and any(holds(field.type) for holds in numbers)]  # fmt: skip
    if wanted is None and others:
        notes.append(
            f"column '{column}', the last, is predicted: data.column chooses another "
            f"({shortlist(others)})"
        )
    if dates and _falls(path, dates[0], table[dates[0]], notes):
        values = values[::-1]
    return Series(values, column, tuple(notes))


def _falls(path: Path, name: str, cells: Any, notes: list[str]) -> bool:
    """Whether the rows are to be turned round. Raises DatasetError where they are in no order."""
    texts = [str(cell) for cell in cells.to_pylist()]
    if cells.null_count:
        row = texts.index("None") + 1
        raise DatasetError(f"{path}: column '{name}', row {row}: the date is missing: fill it in.")
    import pyarrow

    if pyarrow.types.is_time(cells.type) or pyarrow.types.is_duration(cells.type):
        return False
    moments = cells.cast(pyarrow.timestamp("us", getattr(cells.type, "tz", None)))
    seconds = moments.cast(pyarrow.int64()).to_numpy() / 1e6
    times = Times(seconds, texts, name, "dates")
    return order_of_time(path, times, range(1, len(texts) + 1), list, notes)


def _column(path: Path, header: list[str], wanted: str | None) -> str:
    if wanted is None:
        return header[-1]
    if wanted not in header:
        raise DatasetError(
            f"{path} has no column '{wanted}'.{close_match(wanted, header)} "
            f"Choose from: {shortlist(header)}."
        )
    return wanted
