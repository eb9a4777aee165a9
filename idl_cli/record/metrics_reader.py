"""Reading metrics.jsonl of a run: all of it, or its newest metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_metrics(path: Path) -> dict[str, list[Row]]:
    """The rows of each split in order of their steps; none where the file is absent.

    A line that cannot be read (the last one of a run that was killed) is passed over. A resumed run
    does some steps again: what it wrote of them the second time counts.
    """
    splits: dict[str, list[Row]] = {}
    for row in read_rows(path):
        rows = splits.setdefault(row["split"], [])
        while rows and rows[-1]["step"] >= row["step"]:
            rows.pop()
        rows.append(row)
    return splits


def read_rows(path: Path) -> Iterator[Row]:
    """The rows as they were written, those that can be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        if (row := _row(line)) is not None:
            yield row


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    complete = isinstance(row, dict) and isinstance(row.get("split"), str)
    return row if complete and is_number(row.get("step")) else None


def last_metrics(path: Path) -> dict[str, Any]:
    """The newest metrics by split and the epochs and steps seen, out of the end of the file."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 65536))
            lines = stream.read().splitlines()
    except OSError:
        return {}
    newest: dict[str, Any] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # cut in two by our seek, or by whatever ended the run
            continue
        if isinstance(row, dict) and isinstance(split := row.pop("split", None), str):
            newest |= {"epochs": row.pop("epoch", None), "steps": row.pop("step", None)}
            newest[split] = row
    return {key: value for key, value in newest.items() if value is not None}


def is_number(value: Any) -> bool:
    """Whether a value of a JSON or YAML file is a number: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
