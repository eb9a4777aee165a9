"""Small data sets of every kind, written to disk with NumPy, Pillow and the standard library."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idl_datasets import DatasetError

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")
CIFAR_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

Arrays = dict[str, np.ndarray]


@pytest.fixture
def fails() -> Callable[..., AbstractContextManager[None]]:
    """`with fails("part", "other"):` DatasetError of one line that says all of the parts."""

    @contextmanager
    def expect(*parts: str | Path) -> Iterator[None]:
        with pytest.raises(DatasetError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert str(part) in message

    return expect


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download is refused at once, and no proxy stands between."""
    from torchvision import datasets

    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    for known in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(known, "mirrors", ["http://127.0.0.1:9/pictures/"])
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar/cifar-10-python.tar.gz")


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array, after the format's description."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_arrays(rng: np.random.Generator) -> Arrays:
    """Forty train and twenty test pictures, 5x4."""
    return {
        "x_train": rng.integers(0, 256, (40, 5, 4), dtype=np.uint8),
        "y_train": rng.permutation(np.arange(40) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (20, 5, 4), dtype=np.uint8),
        "y_test": rng.permutation(np.arange(20) % 10).astype(np.uint8),
    }


@pytest.fixture
def write_mnist() -> Callable[..., Path]:
    """write_mnist(root, arrays, folder="MNIST", packed=True) lays the four files out."""

    def write(root: Path, arrays: Arrays, folder: str = "MNIST", packed: bool = True) -> Path:
        raw = root / folder / "raw"
        raw.mkdir(parents=True)
        for stem, name in zip(MNIST_FILES, NPZ_NAMES, strict=True):
            data = idx_bytes(arrays[name])
            if packed:
                (raw / f"{stem}.gz").write_bytes(gzip.compress(data))
            else:
                (raw / stem).write_bytes(data)
        return raw

    return write


@pytest.fixture
def mnist_arrays(rng: np.random.Generator) -> Arrays:
    return idx_arrays(rng)


@pytest.fixture
def write_cifar10(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> Callable[..., Arrays]:
    """write_cifar10(root, packed) lays six batches of four pictures out; their MD5s are trusted."""
    from torchvision.datasets import CIFAR10

    def write(root: Path, packed: bool) -> Arrays:
        folder = root / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        rows, labels, md5 = {}, {}, {}
        for name in CIFAR_BATCHES:
            rows[name] = rng.integers(0, 256, (4, 3 * 32 * 32), dtype=np.uint8)
            labels[name] = rng.integers(0, 10, 4).tolist()
            data = pickle.dumps({"data": rows[name], "labels": labels[name]}, protocol=2)
            (folder / name).write_bytes(data)
            md5[name] = hashlib.md5(data).hexdigest()
        if packed:
            archive = root / "cifar-10-python.tar.gz"
            with tarfile.open(archive, "w:gz") as tar:
                for name in CIFAR_BATCHES:
                    tar.add(folder / name, f"cifar-10-batches-py/{name}")
                    (folder / name).unlink()
            folder.rmdir()
            monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        monkeypatch.setattr(CIFAR10, "train_list", [[n, md5[n]] for n in CIFAR_BATCHES[:5]])
        monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
        # A row holds 1,024 red, then green, then blue values, each row by row (the CIFAR page).
        pictures = {n: rows[n].reshape(4, 3, 32, 32) for n in CIFAR_BATCHES}
        return {
            "x_train": np.concatenate([pictures[n] for n in CIFAR_BATCHES[:5]]),
            "y_train": np.concatenate([labels[n] for n in CIFAR_BATCHES[:5]]),
            "x_test": pictures["test_batch"],
            "y_test": np.array(labels["test_batch"]),
        }

    return write


@pytest.fixture
def write_pictures(rng: np.random.Generator) -> Callable[..., Arrays]:
    """write_pictures(folder, shape=(6, 5, 3)) writes PNGs of two classes, and returns them."""

    def write(folder: Path, shape: tuple[int, ...] = (6, 5, 3)) -> Arrays:
        found: dict[str, list[np.ndarray]] = {"train": [], "test": []}
        labels: dict[str, list[int]] = {"train": [], "test": []}
        for split, count in (("train", 8), ("test", 3)):
            for label, name in enumerate(("ant", "bee")):
                (folder / split / name).mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
                    found[split].append(
                        pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
                    )
                    labels[split].append(label)
        return {
            "x_train": np.stack(found["train"]),
            "y_train": np.array(labels["train"]),
            "x_test": np.stack(found["test"]),
            "y_test": np.array(labels["test"]),
        }

    return write


@pytest.fixture
def zip_folder() -> Callable[..., Path]:
    """zip_folder(folder, path, top="") packs a tree."""

    def pack(folder: Path, path: Path, top: str = "") -> Path:
        with zipfile.ZipFile(path, "w") as file:
            for entry in sorted(folder.rglob("*")):
                file.write(entry, f"{top}{entry.relative_to(folder)}")
        return path

    return pack


@pytest.fixture
def float_arrays(rng: np.random.Generator) -> Arrays:
    """A classification of 60 rows of 4 features on very different scales, one of them constant."""
    x = rng.normal(size=(80, 4)) * [1e-3, 1.0, 50.0, 0.0] + [0.0, -3.0, 1000.0, 0.1]
    y = np.arange(80) % 3
    return {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}


@pytest.fixture
def write_npz(tmp_path: Path) -> Callable[..., Path]:
    """write_npz(arrays, y_train=..., x_test=None) writes them, some replaced or left out."""

    def write(arrays: Arrays, **changes: Any) -> Path:
        path = tmp_path / "data.npz"
        merged = {**arrays, **changes}
        np.savez(path, **{name: array for name, array in merged.items() if array is not None})
        return path

    return write
