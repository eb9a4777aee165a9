"""The curves of a run, out of its metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Curve = tuple[list[float], list[float]]  # x, y

# From this many passes on a curve has one point a pass, the mean of its reports: the windows that
# log_every cuts a short pass into can be a few batches long, and all noise.
_PASSES_TO_AVERAGE = 5
_MEANS = ("loss", "accuracy")  # figures of which that mean is the figure of the whole

_BESIDE_THE_LOSS = ("accuracy", "perplexity", "r2")  # the first that a run has is drawn too


def read_metrics(path: Path) -> dict[str, list[Row]]:
    """The rows of each split in order of their steps; none where the file is absent.

    A line that cannot be read (the last one of a run that was killed) is passed over. A resumed run
    does some steps again: what it wrote of them the second time counts.
    """
    splits: dict[str, list[Row]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return splits
    for line in lines:
        row = _row(line)
        if row is None:
            continue
        rows = splits.setdefault(row["split"], [])
        while rows and rows[-1]["step"] >= row["step"]:
            rows.pop()
        rows.append(row)
    return splits


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    complete = isinstance(row, dict) and isinstance(row.get("split"), str)
    return row if complete and _is_number(row.get("step")) else None


def learning(splits: Mapping[str, list[Row]]) -> tuple[dict[str, dict[str, Curve]], str]:
    """By figure and split, the values of the loss and of what else measures the task.

    Returns: the curves, and what they are drawn against: "epoch", or "training step" where there
        was no whole epoch to count in.
    """
    length = _steps_per_epoch(splits)
    shown = {split: rows for split, rows in splits.items() if split in ("train", "val")}
    present = {name for rows in shown.values() for row in rows for name in row}
    names = ["loss", *[name for name in _BESIDE_THE_LOSS if name in present][:1]]
    curves: dict[str, dict[str, Curve]] = {}
    for name in names:
        by_split = {
            split: curve(_by_pass(rows, name, length), name, length or 1.0)
            for split, rows in shown.items()
        }
        if drawn := {split: points for split, points in by_split.items() if points[0]}:
            curves[name] = drawn
    return curves, "epoch" if length else "training step"


def _steps_per_epoch(splits: Mapping[str, list[Row]]) -> float | None:
    """Steps of a pass, of which the rows tell the number, counted from 1.

    A pass's last step has a row: there, and only there, step / epoch is the length of a pass, and
    elsewhere it is less. Within the first pass nothing tells how long that will be.
    """
    rows = [row for name, split in splits.items() if name != "test" for row in split]
    passes = [(row["step"], row["epoch"]) for row in rows if _is_number(row.get("epoch"))]
    if not any(epoch > 1 for _, epoch in passes):
        return None
    return max(step / epoch for step, epoch in passes if epoch >= 1) or None


def _by_pass(rows: list[Row], name: str, length: float | None) -> list[Row]:
    """One row a pass, with the mean of what its rows report, where there are passes enough."""
    told = [row for row in rows if _is_number(row.get(name)) and _is_number(row.get("epoch"))]
    passes = len({row["epoch"] for row in told})
    if length is None or passes < _PASSES_TO_AVERAGE or passes == len(told) or name not in _MEANS:
        return rows
    sums: dict[int, list[float]] = {}  # by pass: steps, their total, the last step
    before = 0.0
    for row in told:
        steps, total, _ = sums.get(row["epoch"], (0.0, 0.0, 0.0))
        window = row["step"] - before
        sums[row["epoch"]] = [steps + window, total + window * row[name], row["step"]]
        before = row["step"]
    return [{"step": step, name: total / steps} for steps, total, step in sums.values()]


def curve(rows: Iterable[Row], name: str, steps_per_unit: float = 1.0) -> Curve:
    """The values of one figure against the step, or against a unit of that many steps."""
    told = [row for row in rows if _is_number(row.get(name))]
    return [row["step"] / steps_per_unit for row in told], [row[name] for row in told]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
