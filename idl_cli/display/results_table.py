"""The table that a training or an evaluation ends with."""

from __future__ import annotations

from collections.abc import Mapping

from idl_cli.display.tables import Column, metric_text, print_table
from idl_core.training import Metrics


def print_results(rows: Mapping[str, Metrics]) -> None:
    """Print metrics, one row a split (or forecast), one column a metric of the first row."""
    columns = [Column("", list(rows))]
    for name in next(iter(rows.values())):
        columns.append(Column(name, [_cell(row.get(name)) for row in rows.values()], number=True))
    print_table(columns)


def _cell(value: float | None) -> str:
    return "" if value is None else metric_text(value)
