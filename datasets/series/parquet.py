"""A column of a Parquet file, through pyarrow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError, reason
from .table import Columns, Table


def open_parquet(path: Path) -> tuple[Table, Callable[[int], np.ndarray]]:
    """The file as a table of text, and what reads one of its columns as numbers.

    Raises DatasetError where pyarrow is absent or the file is damaged; the reader too, naming the
    row that has no number.
    """
    try:
        import pyarrow  # type: ignore[import-not-found,unused-ignore]
        from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DatasetError(
            f"{path}: reading Parquet needs pyarrow: pip install 'idl[parquet]', or give a CSV."
        ) from None
    try:
        file = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
        rows = next(file.iter_batches(batch_size=1), None)
        first = [_text(rows.column(index))[0] for index in range(len(names))] if rows else []
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is damaged or no Parquet file: {reason(error)}.") from None
    if not first:
        raise DatasetError(f"{path} has no rows.")

    def numbers(index: int) -> np.ndarray:
        cells: Any = parquet.read_table(path, columns=[names[index]])[0]
        if not (pyarrow.types.is_floating(cells.type) or pyarrow.types.is_integer(cells.type)):
            raise DatasetError(f"{path}: column '{names[index]}' holds {cells.type}, not numbers.")
        values = np.asarray(cells.to_numpy(), dtype=np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            raise DatasetError(
                f"{path}: column '{names[index]}', row {int(bad.argmax()) + 1}: the value is "
                "missing or not finite: fill it in or remove the row."
            )
        return values

    return _ParquetTable(path, names, first, ",", "", 0), numbers


class _ParquetTable(Table):
    """The columns of a Parquet file as text; a row is its own line."""

    def columns(self, indices: Any) -> Columns:
        from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]

        table = parquet.read_table(self.path, columns=[self.header[index] for index in indices])
        cells = [_text(table[self.header[index]]) for index in indices]
        return Columns(cells, list(range(1, table.num_rows + 1)))


def _text(cells: Any) -> list[str]:
    import pyarrow  # type: ignore[import-not-found,unused-ignore]

    if pyarrow.types.is_timestamp(cells.type):  # Python's own have no nanoseconds
        cells = cells.cast(pyarrow.timestamp("us", cells.type.tz), safe=False)
    return ["" if cell is None else str(cell) for cell in cells.to_pylist()]
