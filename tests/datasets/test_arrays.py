"""The user's arrays: what is taken, and what is said of what is not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idl_datasets import DatasetError, load, normalisation

Arrays = dict[str, np.ndarray]
Fails = Callable[..., Any]


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "longdouble", "i4", "u2", "bool", "i8"])
def test_numbers_of_other_types_become_float32(
    dtype: str, float_arrays: Arrays, write_npz: Any, rng: np.random.Generator
) -> None:
    x = rng.integers(0, 2, (60, 4)).astype(dtype)
    path = write_npz(float_arrays, x_train=x, x_test=np.asfortranarray(x[:20]))
    train = load("arrays", path=path, val_fraction=0).train
    assert train.x.dtype == torch.float32
    np.testing.assert_array_equal(train.x.numpy(), x.astype(np.float64))


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_samples_keep_their_shape(
    shape: tuple[int, ...],
    dtype: Any,
    float_arrays: Arrays,
    write_npz: Any,
    rng: np.random.Generator,
) -> None:
    x = rng.integers(0, 256, (80, *shape)).astype(dtype)
    data = load("arrays", path=write_npz(float_arrays, x_train=x[:60], x_test=x[60:]))
    assert data.input_shape == shape
    inputs, targets = data.train.batch(torch.arange(6))
    assert inputs.shape == (6, *shape)
    assert targets.shape == (6,)


def test_targets_of_one_dimension_become_a_column(float_arrays: Arrays, write_npz: Any) -> None:
    y = np.linspace(0, 1, 80)
    data = load(
        "arrays", path=write_npz(float_arrays, y_train=y[:60], y_test=y[60:]), val_fraction=0
    )
    assert (data.task, data.output_dim, data.class_names) == ("regression", 1, ())
    np.testing.assert_array_equal(data.test.y.numpy(), y[60:, None])


def test_constant_features_stay_harmless(
    float_arrays: Arrays, write_npz: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.1 is no float: its mean, added up in many pieces as of large arrays, has a rounding error.
    monkeypatch.setattr(normalisation, "_CHUNK_BYTES", 64)
    x = np.full((60, 4), [0.1, 1e8, -7.3, 0.0])
    test = np.full((20, 4), [0.2, 1e8, -7.3, 0.0])
    data = load("arrays", path=write_npz(float_arrays, x_train=x, x_test=test))
    assert data.normalisation.std.tolist() == [1, 1, 1, 1]
    inputs, _ = data.test.batch(torch.tensor([0]))
    np.testing.assert_allclose(inputs.numpy(), [[0.1, 0, 0, 0]], atol=1e-6)


def test_targets_are_scaled_by_the_train_split(
    float_arrays: Arrays, write_npz: Any, rng: np.random.Generator
) -> None:
    # 1e9 is no place for float32, whose neighbours there are 64 apart.
    y = rng.normal(size=(80, 3)) * [1.0, 1e-3, 0.0] + [1e9, -2.0, 5.0]
    data = load("arrays", path=write_npz(float_arrays, y_train=y[:60], y_test=y[60:]))
    center, scale = data.train.y.numpy().mean(0), data.train.y.numpy().std(0)
    scale[2] = 1  # a constant is only shifted
    np.testing.assert_array_equal(data.test.y.numpy(), y[60:])
    _, targets = data.test.batch(torch.arange(20))
    assert targets.dtype == torch.float32
    np.testing.assert_allclose(targets.numpy(), (y[60:] - center) / scale, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.normalisation.own_units(targets).numpy(), y[60:], rtol=1e-12,
                               atol=1e-6)  # fmt: skip


def test_a_feature_of_sequences_has_one_scale_at_every_step(
    float_arrays: Arrays, write_npz: Any, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(80, 5, 2)) * [3.0, 0.1] + [7.0, -1.0] + np.arange(5)[:, None]
    data = load("arrays", path=write_npz(float_arrays, x_train=x[:60], x_test=x[60:]),
                val_fraction=0)  # fmt: skip
    inputs, _ = data.test.batch(torch.arange(20))
    mean, std = x[:60].mean((0, 1)), x[:60].std((0, 1))
    np.testing.assert_allclose(inputs.numpy(), (x[60:] - mean) / std, atol=1e-4)


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "NaN"), (-np.inf, "an infinite number"), (1e39, "a number too large for float32")],
)
def test_numbers_that_are_none_are_found(
    name: str,
    value: float,
    what: str,
    float_arrays: Arrays,
    write_npz: Any,
    rng: np.random.Generator,
    fails: Fails,
) -> None:
    arrays = {**float_arrays, "y_train": rng.normal(size=60), "y_test": rng.normal(size=20)}
    arrays[name] = arrays[name].copy()
    arrays[name][7] = value
    arrays[name][11] = value
    with fails(f"{name} holds {what}", "row 7", "2 such rows"):
        load("arrays", path=write_npz(arrays))


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ([1, 2, 3], ["label 1 in row 0", "no row has label 0"]),
        ([0, 1, 3], ["label 3 in row 2", "no row has label 2"]),
        ([0, -2, -1], ["label -2 in row 1", "negative"]),
        ([0, 1, 2**62], [f"label {2**62} in row 2", "no row has label 2"]),
    ],
)
def test_labels_that_are_not_0_to_k(
    labels: list[int], parts: list[str], float_arrays: Arrays, write_npz: Any, fails: Fails
) -> None:
    y = np.array(labels * 20)
    with fails("y_train", *parts, "0..k-1"):
        load("arrays", path=write_npz(float_arrays, y_train=y))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.integers(-2, 5), min_size=4, max_size=8))
def test_labels_are_taken_or_the_smallest_offender_is_named(
    write_npz: Any, labels: list[int]
) -> None:
    x = np.random.default_rng(0).normal(size=(len(labels), 2))
    path = write_npz({"x_train": x, "x_test": x, "y_train": np.array(labels), "y_test": labels})
    good = set(range(max(labels) + 1))
    if len(good) > 1 and set(labels) == good:
        assert load("arrays", path=path, val_fraction=0).output_dim == len(good)
        return
    if set(labels) == good:
        with pytest.raises(DatasetError, match="'0' is the only class"):
            load("arrays", path=path, val_fraction=0)
        return
    negative = [label for label in labels if label < 0]
    gap = next(label for label in range(7) if label not in labels)
    offender = min(negative) if negative else min(label for label in labels if label > gap)
    with pytest.raises(DatasetError, match=f"label {offender} in row {labels.index(offender)},"):
        load("arrays", path=path, val_fraction=0)


def test_a_label_that_only_test_has(float_arrays: Arrays, write_npz: Any, fails: Fails) -> None:
    y = float_arrays["y_test"].copy()
    y[[4, 9]] = 3
    with fails("y_test has label 3 in row 4", "0..2"):
        load("arrays", path=write_npz(float_arrays, y_test=y))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"y_test": None}, ["no array y_test", "x_test"]),
        ({"x_train": None, "X_train": np.ones((60, 4))}, ["no array x_train", "mean 'X_train'?"]),
        ({"y_train": np.zeros(59, int)}, ["x_train has 60 rows but y_train 59"]),
        ({"y_test": np.zeros(21, int)}, ["x_test has 20 rows but y_test 21"]),
        ({"x_test": np.ones((20, 5))}, ["x_train (60, 4)", "x_test (20, 5)"]),
        ({"x_test": np.ones((20, 2, 2))}, ["x_train (60, 4)", "x_test (20, 2, 2)"]),
        ({"x_train": np.ones((0, 4)), "y_train": np.zeros(0, int)}, ["(0, 4)", "nothing"]),
        ({"x_test": np.ones((0, 4)), "y_test": np.zeros(0, int)}, ["x_test", "nothing"]),
        ({"x_train": np.ones(60)}, ["x_train has shape (60,)", "2 to 4 dimensions"]),
        ({"x_train": np.ones((60, 1, 1, 1, 4))}, ["(60, 1, 1, 1, 4)"]),
        ({"x_train": np.array(3.0)}, ["x_train has shape ()"]),
        ({"y_train": np.array(3)}, ["y_train has shape ()"]),
        ({"y_train": np.eye(60, 3, dtype=int), "y_test": np.eye(20, 3, dtype=int)}, ["argmax"]),
        ({"y_train": np.zeros(60, int), "y_test": np.zeros(20, int)}, ["'0' is the only class"]),
        ({"y_test": np.zeros(20)}, ["y_train is int64 but y_test is float64"]),
        ({"x_test": np.ones((20, 4), np.uint8)}, ["x_train is float64 but x_test is uint8"]),
        ({"x_train": np.ones((60, 4), complex)}, ["x_train is of type complex128"]),
        ({"y_train": np.full(60, "cat")}, ["y_train is <U3 but y_test is int64"]),
        ({"y_train": np.full(60, 1j), "y_test": np.full(20, 1j)}, ["y_train is of type complex"]),
        ({"y_train": np.full(60, None)}, ["y_train holds Python objects"]),
    ],
)
def test_what_does_not_fit_is_named(
    changes: dict[str, Any], parts: list[str], float_arrays: Arrays, write_npz: Any, fails: Fails
) -> None:
    path = write_npz(float_arrays, **changes)
    with fails(path, *parts):
        load("arrays", path=path)


class Touch:
    """A pickle of it creates a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open, (str(self.path), "w")


def test_nothing_is_unpickled(
    tmp_path: Path, float_arrays: Arrays, write_npz: Any, fails: Fails
) -> None:
    objects = np.empty(60, dtype=object)
    objects[:] = [Touch(tmp_path / "was-here")] * 60
    path = write_npz(float_arrays, y_train=objects)
    with fails("y_train holds Python objects"):
        load("arrays", path=path)
    path.write_bytes(pickle.dumps(objects))
    with fails(path, "damaged or not an .npz"):
        load("arrays", path=path)
    assert not (tmp_path / "was-here").exists()


def test_no_npz(tmp_path: Path, float_arrays: Arrays, write_npz: Any, fails: Fails) -> None:
    with fails(tmp_path / "none.npz", "does not exist", "x_train"):
        load("arrays", path=tmp_path / "none.npz")
    with fails(tmp_path, "not an .npz"):
        load("arrays", path=tmp_path)
    np.save(tmp_path / "one.npy", float_arrays["x_train"])
    with fails("one.npy", "not an .npz"):
        load("arrays", path=tmp_path / "one.npy")
    path = write_npz(float_arrays)
    data = path.read_bytes()
    for broken in (b"", b"text", data[: len(data) // 2]):
        path.write_bytes(broken)
        with fails(path, "damaged or not an .npz"):
            load("arrays", path=path)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_damaged_npz_never_passes(
    float_arrays: Arrays, write_npz: Any, data: st.DataObject
) -> None:
    path = write_npz(float_arrays)
    whole = load("arrays", path=path)
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        found = load("arrays", path=path)
    except DatasetError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:  # a byte of the directory that says nothing of the contents, such as the time
        assert torch.equal(found.train.x, whole.train.x)
        assert torch.equal(found.train.y, whole.train.y)
