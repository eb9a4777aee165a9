"""The MNIST digits of the benchmarks: the first 8,000 and last 2,000 of the 10,000 test images."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from idl_datasets import Normalisation, Split, default_root
from idl_datasets.pictures.idx import read_idx

TRAIN_SIZE = 8_000
_IMAGES, _LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def find_raw_folder(given: Path | None) -> Path | None:
    """The folder of the t10k files: `given`, else MNIST/raw under the root of data; None: absent.

    The root is $IDL_DATA_ROOT, else the user's cache folder, as for `idl train`.
    """
    folder = given if given is not None else default_root() / "MNIST" / "raw"
    whole = all((folder / name).is_file() for name in (_IMAGES, _LABELS))
    return folder if whole else None


def load_digits(folder: Path) -> tuple[Split, Split]:
    """Train and test split, pictures uint8 (m, 1, 28, 28), normalised by train's mean and std."""
    x = torch.from_numpy(read_idx(folder / _IMAGES, 3)).unsqueeze(1)
    y = torch.from_numpy(read_idx(folder / _LABELS, 1)).long()
    normalisation = Normalisation.of(x[:TRAIN_SIZE], y[:TRAIN_SIZE])
    return (
        Split(x[:TRAIN_SIZE], y[:TRAIN_SIZE], normalisation),
        Split(x[TRAIN_SIZE:], y[TRAIN_SIZE:], normalisation),
    )


def absent_message() -> str:
    """What to print in place of the rows that need the digits."""
    root = os.environ.get("IDL_DATA_ROOT")
    where = "$IDL_DATA_ROOT/MNIST/raw" if root else "MNIST/raw under $IDL_DATA_ROOT (it is not set)"
    return f"skipped: {_IMAGES} and {_LABELS} are not in {where}; --data names another folder."
