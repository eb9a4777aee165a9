"""The data sets on real files, where there are any: $IDL_TEST_DATA or ../shared/data."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idl_datasets import load
from idl_datasets.pictures.idx import read_idx

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("IDL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent: set IDL_TEST_DATA to a folder that has {name}")
    return path


def test_the_mnist_test_half() -> None:
    folder = real("MNIST/raw")
    images = read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", 1)
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert images.shape == (10_000, 28, 28)
    assert images.tobytes() == raw[16:]
    # Published: the first labels of the test half, and how many there are of each digit.
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.usefixtures("no_net")
def test_half_of_mnist_is_not_mnist(fails: Callable[..., Any]) -> None:
    folder = real("MNIST/raw")
    if (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"{folder} has the train half too")
    with fails(f"{folder} lacks train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz ("):
        load("mnist", root=DATA)


def test_the_cifar10_jpegs() -> None:
    path = real("cifar10_jpg_12k.zip")
    data = load("image_folder", path=path, val_fraction=0)
    assert data.input_shape == (3, 32, 32)
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert data.train.y.bincount().tolist() == [1000] * 10
    assert data.test.y.bincount().tolist() == [200] * 10
    for split, suffix in ((data.train, "train"), (data.test, "test")):
        for row in torch.randint(len(split), (5,), generator=torch.Generator().manual_seed(0)):
            per_class = len(split) // 10
            label, number = divmod(int(row), per_class)
            name = f"cifar10_jpg/{suffix}/{data.class_names[label]}/{number:04}.jpg"
            with zipfile.ZipFile(path) as file, file.open(name) as member:
                pixels = np.array(Image.open(member))
            np.testing.assert_array_equal(split.x[row].permute(1, 2, 0).numpy(), pixels)
            assert int(split.y[row]) == label
