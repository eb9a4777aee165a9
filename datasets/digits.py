"""scikit-learn's handwritten digits: 1,797 pictures of 8x8, embedded in the package."""

from __future__ import annotations

import numpy as np
import torch

from .assembly import assemble
from .dataset import Dataset
from .source import Request, Source

_TEST_EVERY = 5


def _load(request: Request) -> Dataset:
    from sklearn.datasets import load_digits  # a second to import, and most runs need none of it

    bunch = load_digits()
    # Values are 0..16 in steps of 1. Times 15 fills a byte and is exactly undone by the
    # normalisation; 255 / 16 would not be a whole number.
    x = torch.from_numpy((bunch.images * 15).astype(np.uint8)).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    test = _every_nth_of_each_class(y)
    return assemble(
        request,
        (x[~test], y[~test]),
        (x[test], y[test]),
        class_names=tuple(str(digit) for digit in range(10)),
    )


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
)
