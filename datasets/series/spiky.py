"""A synthetic series: a noisy sine with regions where four fast waves take over."""

from __future__ import annotations

import numpy as np

from ..dataset import Dataset
from ..digest import digest_of
from ..options import whole_number
from ..source import Request, Source
from .windows import Series, rows_by_fraction, windows

POINTS, END = 10_000, 100.0
FREQUENCIES = (2, 23, 78, 100)
LEVEL, LOOK_BACK, TEST_FRACTION = 7, 60, 0.4


def spiky(seed: int, level: int = LEVEL) -> np.ndarray:
    """The series (10,000,), drawn from a generator of its own.

    sin x plus normal noise of deviation 0.05 level at x evenly on [0, 100]; in level + 20 regions
    of level + 100 points, whose starts are drawn uniformly, (level / 2) Σ sin(f x) instead.
    """
    rng = np.random.default_rng(seed)
    x = np.linspace(0.0, END, POINTS)
    values = np.sin(x) + rng.normal(0.0, 0.05 * level, POINTS)
    length = level + 100
    waves = level / 2 * np.sin(np.multiply.outer(FREQUENCIES, x)).sum(0)
    for start in rng.integers(0, POINTS - length + 1, level + 20):
        values[start : start + length] = waves[start : start + length]
    return values


def _load(request: Request) -> Dataset:
    level = whole_number(request, "level", LEVEL)
    rows = rows_by_fraction(POINTS, request.val_fraction, TEST_FRACTION)
    look_back = whole_number(request, "look_back", LOOK_BACK)
    horizon = whole_number(request, "horizon", 1)
    # Sines differ in their last digit from machine to machine: the digest is of what makes them.
    digest = digest_of("spiky", str(request.seed), str(level))
    series = Series(spiky(request.seed, level), "y", digest=digest)
    return windows(request, series, look_back, horizon, rows)


SPIKY = Source(
    help="10,000 points of a noisy sine with fast bursts, made from the seed; works offline",
    load=_load,
    is_ready=lambda root: True,
    kind="series",
    embedded=True,
    options=("level", "look_back", "horizon"),
)
