"""MNIST and Fashion-MNIST from files that lie there, and what is said where they do not."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_datasets import load

pytestmark = pytest.mark.usefixtures("no_net")
Fails = Callable[..., Any]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("download", [True, False])
def test_absent(name: str, download: bool, tmp_path: Path, fails: Fails) -> None:
    folder = tmp_path / "none" / ("MNIST" if name == "mnist" else "FashionMNIST") / "raw"
    why = "127.0.0.1" if download else "downloading is off"
    with fails(name, folder, "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", why):
        load(name, root=tmp_path / "none", download=download)
    with fails("http://127.0.0.1:9/pictures/", "data=digits"):
        load(name, root=tmp_path / "none", download=download)
    assert not (tmp_path / "none").exists()


def test_only_what_is_absent_is_asked_for(
    tmp_path: Path, write_mnist: Any, mnist_arrays: Any, fails: Fails
) -> None:
    raw = write_mnist(tmp_path, mnist_arrays)
    (raw / "train-labels-idx1-ubyte.gz").unlink()
    before = sorted(raw.iterdir())
    with fails(f"{raw} lacks train-labels-idx1-ubyte.gz ("):
        load("mnist", root=tmp_path)
    assert sorted(raw.iterdir()) == before


@pytest.mark.parametrize("stem", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_file_is_named(
    stem: str, packed: bool, tmp_path: Path, write_mnist: Any, mnist_arrays: Any, fails: Fails
) -> None:
    raw = write_mnist(tmp_path, mnist_arrays, packed=packed)
    path = raw / (f"{stem}.gz" if packed else stem)
    data = path.read_bytes()
    for broken in (data[:-5], data[: len(data) // 2], b"not a data set", b""):
        path.write_bytes(broken)
        with fails(path, "is damaged", "move it away and get it again"):
            load("mnist", root=tmp_path)


def test_files_that_do_not_belong_together(
    tmp_path: Path, write_mnist: Any, mnist_arrays: Any, fails: Fails
) -> None:
    whole = dict(mnist_arrays)
    write_mnist(tmp_path / "a", {**whole, "y_train": whole["y_train"][:39]})
    with fails("40 pictures", "39 labels", "train-labels-idx1-ubyte.gz"):
        load("mnist", root=tmp_path / "a")
    write_mnist(tmp_path / "b", {**whole, "x_test": np.zeros((20, 5, 5), np.uint8)})
    with fails("(5, 4)", "(5, 5)"):
        load("mnist", root=tmp_path / "b")
    write_mnist(tmp_path / "c", {**whole, "y_test": np.full(20, 10, np.uint8)})
    with fails("t10k-labels-idx1-ubyte.gz", "label 10 at row 0"):
        load("mnist", root=tmp_path / "c")
    empty = {"x_test": np.zeros((0, 5, 4)), "y_test": np.zeros(0)}
    write_mnist(tmp_path / "d", {**whole, **empty})
    with fails("t10k-images-idx3-ubyte.gz", "no pictures"):
        load("mnist", root=tmp_path / "d")


def test_files_unpacked_by_torchvision_are_found(
    tmp_path: Path, write_mnist: Any, mnist_arrays: Any
) -> None:
    raw = write_mnist(tmp_path, mnist_arrays)
    for path in list(raw.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    data = load("mnist", root=tmp_path, val_fraction=0, download=False)
    np.testing.assert_array_equal(data.train.x[:, 0].numpy(), mnist_arrays["x_train"])
