"""scikit-learn's handwritten digits: 1,797 pictures of 8x8, embedded in the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ..assembly import Samples, assemble
from ..dataset import Dataset
from ..source import Request, Source

_TEST_EVERY = 5


def _load(request: Request) -> Dataset:
    table = _table()
    images, target = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]
    # Values are 0..16 in steps of 1. Times 15 fills a byte and is exactly undone by the
    # normalisation; 255 / 16 would not be a whole number.
    x = torch.from_numpy((images * 15).astype(np.uint8))
    y = torch.from_numpy(target.astype(np.int64))
    test = _every_nth_of_each_class(y)
    names = tuple(str(digit) for digit in range(10))
    samples = Samples((x[~test], y[~test]), (x[test], y[test]), class_names=names)
    return assemble(request, samples)


def _table() -> np.ndarray:
    """The 64 values of every digit and its class, (1797, 65).

    Read from scikit-learn's file where it is, without importing scikit-learn: that is nearly two
    seconds, most of them SciPy's statistics, at the start of every run with the default data.
    """
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # wherever a version of it keeps them

    images, target = load_digits(return_X_y=True)
    return np.column_stack([images, target])


def _every_nth_of_each_class(y: torch.Tensor) -> torch.Tensor:
    """Mask of the test samples: every fifth of each class, in the order of the source.

    Stratified, and drawn by no generator: it is the same for every seed, version and machine, so
    that test figures of different runs compare.
    """
    mask = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        mask[(y == label).nonzero().flatten()[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return mask


DIGITS = Source(
    help="1,797 handwritten digits, 8x8 gray, 10 classes; embedded in scikit-learn, works offline",
    load=_load,
    is_ready=lambda root: True,
    kind="pictures",
    embedded=True,
)
