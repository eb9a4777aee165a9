"""Time series as windows: what was seen, and what came next; split in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..dataset import Dataset
from ..digest import digest_of
from ..errors import DatasetError
from ..normalisation import Normalisation
from ..source import Request
from ..split import Split


@dataclass(frozen=True, eq=False)
class SeriesDataset(Dataset):
    """Windows of a series. Inputs and targets are scaled by the train rows' mean and deviation.

    A split's x (m, look_back, 1) and y (m, horizon) are float64, in the series' own units, and
    share its memory: only what is scaled can be float32, where a series far from zero would keep
    few digits. A window belongs to the split that its targets are in; it may look back into the
    rows before.

    column: what the series is called
    """

    column: str = ""

    def denormalise(self, values: Tensor) -> Tensor:
        """Scaled targets or predictions in the series' own units, float64."""
        return self.normalisation.own_units(values)

    def persistence(self, split: Split) -> Tensor:
        """The forecast that nothing changes, scaled like the targets: (m, horizon)."""
        return split.normalisation.targets(split.x[:, -1]).expand(-1, split.y.shape[1])


@dataclass(frozen=True)
class Series:
    """Values (T,) in the order of time.

    column: what they are called
    notes: what was done to the user's data that they may not expect
    digest: of what they are made from; None: of the values
    """

    values: np.ndarray
    column: str
    notes: tuple[str, ...] = ()
    digest: str | None = None

    def first(self, count: int) -> Series:
        """Its first `count` values."""
        return replace(self, values=self.values[:count])


def windows(
    request: Request, given: Series, look_back: int, horizon: int, rows: Sequence[int]
) -> SeriesDataset:
    """The data set of a series, its first rows[0] rows train, then rows[1] val, rows[2] test.

    Raises DatasetError where a split is too short for a window.
    """
    series = torch.from_numpy(np.array(given.values, dtype=np.float64))
    ends = np.cumsum(rows)
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for name, first, end in zip(("train", "val", "test"), (0, *ends[:-1]), ends, strict=True):
        if name == "val" and first == end:
            continue
        own = int(end) - int(first)
        # The first target of train needs look_back rows before it; the others' are there already.
        first = max(int(first), look_back)
        count = int(end) - first - horizon + 1
        if count < 1:
            raise DatasetError(
                f"{request.name}: {name} has {own:,} rows, too few for look_back={look_back} and "
                f"horizon={horizon}: of {len(series):,} rows, train gets {rows[0]:,}, val "
                f"{rows[1]:,}, test {rows[2]:,}; give a longer file or smaller windows."
            )
        x = series.unfold(0, look_back, 1)[first - look_back :][:count, :, None]
        parts[name] = x, series[first:end].unfold(0, horizon, 1)
    seen = series[: rows[0], None]
    normalisation = Normalisation.of(seen, seen)
    splits = {name: Split(x, y, normalisation) for name, (x, y) in parts.items()}
    return SeriesDataset(
        name=request.name,
        train=splits["train"],
        val=splits.get("val"),
        test=splits["test"],
        task="regression",
        input_shape=(look_back, 1),
        output_dim=horizon,
        class_names=(),
        column=given.column,
        digest=given.digest or digest_of(series),
        notes=given.notes,
    )


def rows_by_fraction(count: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """Rows of train, val and test: the last test_fraction of all is test, and of what is before
    it the last val_fraction is val."""
    test = round(test_fraction * count)
    val = round(val_fraction * (count - test))
    return count - test - val, val, test
