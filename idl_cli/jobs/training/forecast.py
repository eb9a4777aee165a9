"""The persistence forecast, which a model of a series is compared with, and the picture of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from idl_core.training import Metrics, Precision, Task, predict
from idl_datasets import SeriesDataset, Split

FORECAST = "forecast.png"
_CLOSE_UP = 200  # forecasts that are drawn large


def persistence_metrics(dataset: SeriesDataset, split: Split, task: Task) -> Metrics:
    """The task's metrics of the persistence forecast: that nothing changes."""
    forecast = dataset.persistence(split)
    targets = split.targets()
    loss = task.loss(forecast, targets)
    return task.metrics(task.sums([task.measure(forecast, targets, loss)]))


def draw_forecast(
    path: Path,
    model: nn.Module,
    dataset: SeriesDataset,
    split: Split,
    batch_size: int,
    precision: Precision,
    say: Callable[[str], None],
) -> None:
    """Write the picture of a model's forecasts beside the truth, in the series' own units.

    A picture that cannot be written is a warning: the metrics do not depend on it.
    """
    from idl_cli.display.figures import save
    from idl_cli.display.forecast_figure import forecast_figure

    horizon = dataset.output_dim
    lines = {
        "truth": split.targets(),
        "forecast": predict(model, split, batch_size, precision),
        "persistence": dataset.persistence(split),
    }
    ahead = {name: _last_ahead(dataset, values) for name, values in lines.items()}
    figure = forecast_figure(
        ahead,
        dataset.column,
        horizon,
        _most_varied(ahead["truth"], _CLOSE_UP),
    )
    try:
        save(figure, path)
    except OSError as error:
        say(f"warning: {path} not written: {error.strerror or error}")


def _last_ahead(dataset: SeriesDataset, values: Tensor) -> np.ndarray:
    """The last column of (m, horizon), the furthest steps ahead, in the series' own units."""
    units: np.ndarray = dataset.denormalise(values[:, -1]).cpu().numpy()
    return units


def _most_varied(truth: np.ndarray, length: int) -> tuple[int, int]:
    """First and last + 1 of the stretch of `length` values in which the truth varies most."""
    if len(truth) <= length:
        return 0, len(truth)
    starts = range(0, len(truth) - length + 1, max(1, length // 4))
    first = max(starts, key=lambda start: float(truth[start : start + length].std()))
    return first, first + length
