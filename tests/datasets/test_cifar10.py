"""CIFAR-10 from its archive or its folder: nothing is unpickled that is not what was published."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_datasets import is_ready, load

pytestmark = pytest.mark.usefixtures("no_net")
Fails = Callable[..., Any]


@pytest.mark.parametrize("packed", [True, False])
def test_archive_and_folder_hold_the_same(packed: bool, tmp_path: Path, write_cifar10: Any) -> None:
    assert not is_ready("cifar10", tmp_path)
    truth = write_cifar10(tmp_path, packed)
    assert is_ready("cifar10", tmp_path)
    before = sorted(tmp_path.rglob("*"))
    data = load("cifar10", root=tmp_path, val_fraction=0)
    np.testing.assert_array_equal(data.train.x.numpy(), truth["x_train"])
    np.testing.assert_array_equal(data.train.y.numpy(), truth["y_train"])
    np.testing.assert_array_equal(data.test.x.numpy(), truth["x_test"])
    np.testing.assert_array_equal(data.test.y.numpy(), truth["y_test"])
    assert sorted(tmp_path.rglob("*")) == before  # the root may be read-only


@pytest.mark.parametrize("download", [True, False])
def test_absent(download: bool, tmp_path: Path, fails: Fails) -> None:
    archive, where = "cifar-10-python.tar.gz", "http://127.0.0.1:9/cifar/"
    with fails("cifar10", f"{tmp_path} lacks {archive}", where, "data=digits"):
        load("cifar10", root=tmp_path, download=download)


class Touch:
    """A pickle of it creates a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open, (str(self.path), "w")


def test_a_foreign_pickle_is_not_loaded(tmp_path: Path, write_cifar10: Any, fails: Fails) -> None:
    write_cifar10(tmp_path, packed=False)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps(Touch(tmp_path / "was-here")))
    with fails(path, "is damaged", "MD5"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "was-here").exists()


def test_a_damaged_archive_is_named(tmp_path: Path, write_cifar10: Any, fails: Fails) -> None:
    write_cifar10(tmp_path, packed=True)
    path = tmp_path / "cifar-10-python.tar.gz"
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 255
    for broken in (data[: len(data) // 2], bytes(flipped), b"not an archive", b""):
        path.write_bytes(broken)
        with fails(path, "is damaged"):
            load("cifar10", root=tmp_path)


def test_an_incomplete_folder_is_not_taken(
    tmp_path: Path, write_cifar10: Any, fails: Fails
) -> None:
    write_cifar10(tmp_path, packed=False)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    assert not is_ready("cifar10", tmp_path)
    with fails("lacks cifar-10-python.tar.gz"):
        load("cifar10", root=tmp_path)
