"""The points of a run's learning curves, computed from the rows of its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from idl_cli.record.metrics_reader import Row, is_number

Curve = tuple[list[float], list[float]]  # x, y

# From this many passes on a curve has one point a pass, the mean of its reports: the windows that
# log_every cuts a short pass into can be a few batches long, and all noise.
_PASSES_TO_AVERAGE = 5

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
    """One row a pass, of all its reports, where there are enough passes; else the rows as they are.

    Every metric has its points at the same steps.
    """
    found = [row for row in rows if is_number(row.get(name)) and is_number(row.get("epoch"))]
    passes: dict[int, list[tuple[float, Row]]] = {}  # by pass: steps of each report, and it
    before = 0.0
    for row in found:
        passes.setdefault(row["epoch"], []).append((row["step"] - before, row))
        before = row["step"]
    if length is None or len(passes) < _PASSES_TO_AVERAGE or len(passes) == len(found):
        return rows
    return [
        {"step": reports[-1][1]["step"], name: _whole_pass(name, reports)}
        for reports in passes.values()
    ]


def _whole_pass(name: str, reports: list[tuple[float, Row]]) -> float:
    """A metric over all steps of a pass, from its reports, each with its number of steps."""
    if name == "perplexity":
        return math.exp(_mean(reports, "loss"))
    if name == "r2" and all(is_number(row.get("mse")) and row["r2"] < 1 for _, row in reports):
        # 1 - error / variance of the targets. What is between the reports' own means is nothing
        # beside it, as each report is of samples drawn at random.
        variance = sum(steps * row["mse"] / (1 - row["r2"]) for steps, row in reports)
        error = sum(steps * row["mse"] for steps, row in reports)
        return 1 - error / variance if variance > 0 else float("nan")
    return _mean(reports, name)


def _mean(reports: list[tuple[float, Row]], name: str) -> float:
    total = sum(steps for steps, _ in reports)
    return float(sum(steps * row[name] for steps, row in reports) / total)


def iterations(rows: Iterable[Row]) -> dict[str, Curve]:
    """Curves of the solver's iterations, forward and adjoint, against the step.

    A report is of the last batch before it. At the end of a pass that is a smaller one, which is
    solved in fewer iterations and left out: of whole batches alone a curve says how they change.
    """
    found = list(rows)
    whole = max((row.get("solver_samples") or 0 for row in found), default=0)
    found = [row for row in found if (row.get("solver_samples") or whole) == whole]
    curves = {name: curve(found, f"{name}_iterations") for name in ("forward", "adjoint")}
    return {name: points for name, points in curves.items() if points[0]}


def curve(rows: Iterable[Row], name: str, steps_per_unit: float = 1.0) -> Curve:
    """The values of one metric against the step, or against a unit of that many steps."""
    found = [row for row in rows if is_number(row.get(name))]
    return [row["step"] / steps_per_unit for row in found], [row[name] for row in found]
