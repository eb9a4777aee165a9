"""The points of a run's learning curves, computed from the rows of its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from idl_cli.record.metrics_reader import Row, is_number

Curve = tuple[list[float], list[float]]  # x, y

# From this many passes on a curve has one point a pass, the mean of its reports: the windows that
# log_every cuts a short pass into can be a few batches long, and all noise.
_PASSES_TO_AVERAGE = 5
_MEANS = ("loss", "accuracy")  # metrics of a pass that are the mean over its steps

_BESIDE_THE_LOSS = ("accuracy", "perplexity", "r2")  # the first that a run has is drawn too


def learning(splits: Mapping[str, list[Row]]) -> tuple[dict[str, dict[str, Curve]], str]:
    """Curves of the loss and of the task's main other metric, by metric and split.

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
    """Steps of a pass, from the steps and the pass numbers (from 1) of the rows.

    A pass's last step has a row: there, and only there, step / epoch is the length of a pass, and
    elsewhere it is less. Within the first pass its length is not known.
    """
    rows = [row for name, split in splits.items() if name != "test" for row in split]
    passes = [(row["step"], row["epoch"]) for row in rows if is_number(row.get("epoch"))]
    if not any(epoch > 1 for _, epoch in passes):
        return None
    return max(step / epoch for step, epoch in passes if epoch >= 1) or None


def _by_pass(rows: list[Row], name: str, length: float | None) -> list[Row]:
    """Average the rows of each pass, where there are enough passes; else the rows as they are."""
    found = [row for row in rows if is_number(row.get(name)) and is_number(row.get("epoch"))]
    passes = len({row["epoch"] for row in found})
    if length is None or passes < _PASSES_TO_AVERAGE or passes == len(found) or name not in _MEANS:
        return rows
    sums: dict[int, list[float]] = {}  # by pass: steps, their total, the last step
    before = 0.0
    for row in found:
        steps, total, _ = sums.get(row["epoch"], (0.0, 0.0, 0.0))
        window = row["step"] - before
        sums[row["epoch"]] = [steps + window, total + window * row[name], row["step"]]
        before = row["step"]
    return [{"step": step, name: total / steps} for steps, total, step in sums.values()]


def curve(rows: Iterable[Row], name: str, steps_per_unit: float = 1.0) -> Curve:
    """The values of one metric against the step, or against a unit of that many steps."""
    found = [row for row in rows if is_number(row.get(name))]
    return [row["step"] / steps_per_unit for row in found], [row[name] for row in found]
