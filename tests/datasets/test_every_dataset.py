"""What holds for every data set, against arrays known without the code under test."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idl_datasets import Dataset, DatasetError, Normalisation, Split, load

DIGIT_NAMES = tuple(str(digit) for digit in range(10))
CIFAR_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
KINDS = (
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "image_folder",
    "image_zip",
    "float_classes",
    "byte_classes",
    "regression",
)


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator) -> Any:
    """Every kind of data set, with the arrays that went into it."""
    kind = request.param
    fixture = request.getfixturevalue
    root = {"root": tmp_path}
    if kind == "digits":
        return {"name": kind, "truth": _digits(), "classes": DIGIT_NAMES}
    if kind in ("mnist", "fashion_mnist"):
        arrays = fixture("mnist_arrays")
        folder, packed = ("MNIST", True) if kind == "mnist" else ("FashionMNIST", False)
        fixture("write_mnist")(tmp_path, arrays, folder, packed)
        truth = {k: v[:, None] if k[0] == "x" else v for k, v in arrays.items()}
        classes = DIGIT_NAMES if kind == "mnist" else _torchvision_classes()
        return {"name": kind, "with": root, "truth": truth, "classes": classes}
    if kind == "cifar10":
        truth = fixture("write_cifar10")(tmp_path, packed=True)
        classes = CIFAR_NAMES
        return {"name": kind, "with": root, "truth": truth, "classes": classes}
    if kind.startswith("image"):
        shape = (6, 5, 3) if kind == "image_folder" else (7, 4)
        truth = fixture("write_pictures")(tmp_path / "pictures", shape)
        path = tmp_path / "pictures"
        if kind == "image_zip":
            path = fixture("zip_folder")(path, tmp_path / "pictures.zip", "top/")
        return {
            "name": "image_folder",
            "with": {"path": path},
            "truth": truth,
            "classes": ("ant", "bee"),
        }
    truth, classes = fixture("float_arrays"), ("0", "1", "2")
    if kind == "byte_classes":
        truth["x_train"] = rng.integers(0, 256, (60, 3, 4, 5), dtype=np.uint8)
        truth["x_test"] = rng.integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)
    elif kind == "regression":
        truth["y_train"], truth["y_test"] = rng.normal(size=(60, 2)), rng.normal(size=(20, 2))
        classes = ()
    path = fixture("write_npz")(truth)
    return {"name": "arrays", "with": {"path": path}, "truth": truth, "classes": classes}


def _digits() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    seen = dict.fromkeys(range(10), 0)
    train: list[int] = []
    test: list[int] = []
    for row, label in enumerate(bunch.target):
        seen[label] += 1
        (test if seen[label] % 5 == 0 else train).append(row)
    x = (bunch.images * 15)[:, None].astype(np.uint8)
    return {
        "x_train": x[train],
        "y_train": bunch.target[train],
        "x_test": x[test],
        "y_test": bunch.target[test],
    }


def _torchvision_classes() -> tuple[str, ...]:
    from torchvision.datasets import FashionMNIST

    return tuple(FashionMNIST.classes)


@pytest.fixture
def get(case: Any) -> Callable[..., Dataset]:
    """get(val_fraction=..., seed=...) loads the case."""

    def load_case(**arguments: Any) -> Dataset:
        return load(case["name"], **case.get("with", {}), **arguments)

    return load_case


def everything(split: Split) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = split.batch(torch.arange(len(split)))
    return inputs.numpy(), targets.numpy()


def rows(split: Split) -> list[bytes]:
    pairs = zip(split.x, split.y, strict=True)
    return [x.numpy().tobytes() + y.numpy().tobytes() for x, y in pairs]


def test_arrays_are_those_of_the_source(case: Any, get: Callable[..., Dataset]) -> None:
    data, truth = get(val_fraction=0), case["truth"]
    assert data.val is None
    for split, suffix in ((data.train, "train"), (data.test, "test")):
        x, y = truth[f"x_{suffix}"], truth[f"y_{suffix}"]
        expected = torch.uint8 if x.dtype == np.uint8 else torch.float32
        assert split.x.dtype == expected
        assert split.y.dtype == (torch.int64 if case["classes"] else torch.float64)
        np.testing.assert_array_equal(split.x.numpy(), x.astype(split.x.numpy().dtype))
        np.testing.assert_array_equal(split.y.numpy(), y.astype(split.y.numpy().dtype))


def test_description(case: Any, get: Callable[..., Dataset]) -> None:
    data = get()
    assert data.name == case["name"]
    assert data.input_shape == case["truth"]["x_train"].shape[1:]
    assert data.class_names == case["classes"]
    if case["classes"]:
        assert (data.task, data.output_dim) == ("classification", len(case["classes"]))
    else:
        assert (data.task, data.output_dim) == ("regression", case["truth"]["y_train"].shape[1])


def test_normalisation_is_that_of_the_train_split(get: Callable[..., Dataset]) -> None:
    data = get(val_fraction=0.25, seed=3)
    assert data.val is not None
    x = data.train.x.numpy().astype(np.float64)
    if data.train.x.dtype == torch.uint8:
        axes = (0, *range(2, x.ndim)) if x.ndim == 4 else tuple(range(x.ndim))
        expected_shape = (x.shape[1], 1, 1)
    else:
        axes, expected_shape = (0,), x.shape[1:]
    mean, std = x.mean(axes), x.std(axes)
    std[std < 1e-12] = 1  # NumPy's deviation of a constant is its rounding error
    mean, std = mean.reshape(expected_shape), std.reshape(expected_shape)
    np.testing.assert_allclose(data.normalisation.mean.numpy(), mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(data.normalisation.std.numpy(), std, rtol=1e-5)
    for split in (data.train, data.val, data.test):
        inputs, _ = everything(split)
        assert inputs.dtype == np.float32
        truth = (split.x.numpy().astype(np.float64) - mean) / std
        # float32 keeps 7 digits of an offset of 1,000 times the deviation.
        np.testing.assert_allclose(inputs, truth, atol=1e-4)


def test_another_normalisation_is_that_of_every_split(get: Callable[..., Dataset]) -> None:
    data = get(val_fraction=0.25, seed=3)
    other = Normalisation(
        data.normalisation.mean + 3, 2 * data.normalisation.std,
        torch.tensor([1.0], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64),
    )  # fmt: skip
    seen = data.normalised(other)
    assert (seen.name, seen.normalisation) == (data.name, other)
    for name in ("train", "val", "test"):
        inputs, targets = everything(getattr(seen, name))
        x = getattr(data, name).x.numpy().astype(np.float64)
        truth = (x - other.mean.numpy()) / other.std.numpy()
        np.testing.assert_allclose(inputs, truth, atol=1e-4)
        y = getattr(data, name).y.numpy()
        np.testing.assert_allclose(targets, y if data.class_names else (y - 1) / 4, atol=1e-6)


def test_batch_picks_the_rows_asked_for(get: Callable[..., Dataset]) -> None:
    train = get().train
    before = train.x.clone()
    inputs, targets = everything(train)
    index = torch.tensor([3, 0, 3, len(train) - 1])
    some_inputs, some_targets = train.batch(index)
    np.testing.assert_array_equal(some_inputs.numpy(), inputs[index.numpy()])
    np.testing.assert_array_equal(some_targets.numpy(), targets[index.numpy()])
    assert torch.equal(train.x, before)
    none, _ = train.batch(torch.empty(0, dtype=torch.int64))
    assert none.shape == (0, *train.x.shape[1:])


def test_validation_is_cut_from_train_by_seed(get: Callable[..., Dataset]) -> None:
    whole, cut = get(val_fraction=0), get(val_fraction=0.25, seed=1)
    assert cut.val is not None
    m = len(whole.train)
    assert len(cut.val) == round(0.25 * m)
    assert sorted(rows(cut.train) + rows(cut.val)) == sorted(rows(whole.train))
    again, other = get(val_fraction=0.25, seed=1), get(val_fraction=0.25, seed=2)
    assert again.val is not None
    assert other.val is not None
    assert rows(again.val) == rows(cut.val)
    assert rows(again.train) == rows(cut.train)
    assert rows(other.val) != rows(cut.val)
    assert rows(cut.test) == rows(other.test) == rows(whole.test)
    # A tail or a head would keep out whole writers or classes.
    assert rows(cut.val) not in (
        rows(whole.train)[: len(cut.val)],
        rows(whole.train)[-len(cut.val) :],
    )


def test_a_cut_that_leaves_nothing_is_refused(
    get: Callable[..., Dataset], fails: Callable[..., Any]
) -> None:
    with fails("val_fraction=0.0001", "validation split empty"):
        get(val_fraction=0.0001)
    with fails("val_fraction=0.9999", "train split empty"):
        get(val_fraction=0.9999)


def test_the_digits_of_a_scikit_learn_that_keeps_them_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = load("digits")
    monkeypatch.setattr("idl_datasets.pictures.digits.find_spec", lambda name: None)
    other = load("digits")
    assert torch.equal(other.train.x, usual.train.x)
    assert torch.equal(other.test.y, usual.test.y)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan"), "0.1", None])
def test_a_fraction_out_of_range_is_refused(fraction: Any) -> None:
    with pytest.raises(DatasetError, match="val_fraction="):
        load("digits", val_fraction=fraction)


def test_global_generators_are_left_alone(get: Callable[..., Dataset]) -> None:
    def states() -> bytes:
        of_numpy = np.random.get_state()  # noqa: NPY002
        return pickle.dumps((torch.get_rng_state().numpy(), of_numpy, random.getstate()))

    before = states()
    first = get(seed=4)
    assert states() == before
    torch.rand(3)
    assert rows(get(seed=4).train) == rows(first.train)


def test_it_moves_as_a_whole(get: Callable[..., Dataset]) -> None:
    data = get()
    moved = data.to("meta")
    assert moved.val is not None
    for split in (moved.train, moved.val, moved.test):
        seen = split.normalisation
        tensors = (split.x, split.y, seen.mean, seen.std, seen.center, seen.scale)
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(moved.train) == len(data.train)
    assert (moved.name, moved.input_shape) == (data.name, data.input_shape)
    assert data.to("cpu").train.x.data_ptr() == data.train.x.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_the_same_on_the_gpu(get: Callable[..., Dataset]) -> None:
    data = get()
    index = torch.arange(5)
    inputs, targets = data.train.batch(index)
    on_gpu, targets_on_gpu = data.to("cuda").train.batch(index.cuda())
    torch.testing.assert_close(on_gpu.cpu(), inputs)
    assert torch.equal(targets_on_gpu.cpu(), targets)
