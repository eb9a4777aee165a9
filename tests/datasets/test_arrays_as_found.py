"""Labels and pictures in arrays as other programs store them: recognised, and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from idl_datasets import load

Arrays = dict[str, np.ndarray]
Fails = Callable[..., Any]


def labels(arrays: Arrays, change: Callable[[np.ndarray], Any]) -> Arrays:
    return {name: np.asarray(change(arrays[name])) for name in ("y_train", "y_test")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y.astype(float), "0, 1, 2 as float64: taken as class labels"),
        (lambda y: y.astype(np.float32)[:, None], "taken as class labels"),
        (lambda y: y[:, None], ""),
        (lambda y: y.astype(np.uint8), ""),
        (lambda y: np.eye(3, dtype=np.int64)[y], "one-hot: taken as 3 classes"),
        (lambda y: np.eye(3)[y], "one-hot"),
        (lambda y: np.eye(3, dtype=bool)[y], "one-hot"),
    ],
)
def test_labels_however_stored(
    change: Any, said: str, float_arrays: Arrays, write_npz: Any
) -> None:
    data = load("arrays", path=write_npz(float_arrays, **labels(float_arrays, change)))
    assert (data.task, data.class_names) == ("classification", ("0", "1", "2"))
    np.testing.assert_array_equal(data.test.y.numpy(), float_arrays["y_test"])
    assert said in "".join(data.notes)
    assert bool(said) == bool(data.notes)


def test_bool_labels(float_arrays: Arrays, write_npz: Any) -> None:
    data = load("arrays", path=write_npz(float_arrays, **labels(float_arrays, lambda y: y > 1)))
    assert (data.class_names, data.notes) == (("0", "1"), ())
    np.testing.assert_array_equal(data.test.y.numpy(), float_arrays["y_test"] > 1)


@pytest.mark.parametrize("dtype", ["U5", "S5"])
def test_words(dtype: str, float_arrays: Arrays, write_npz: Any, fails: Fails) -> None:
    words = np.array(["dog", "cat", "fox"], dtype)
    changed = labels(float_arrays, lambda y: words[y])
    data = load("arrays", path=write_npz(float_arrays, **changed))
    assert data.class_names == ("cat", "dog", "fox")
    assert [data.class_names[y].encode() for y in data.test.y] == [
        np.asarray(word).astype("S5").item() for word in changed["y_test"]
    ]
    changed["y_test"][4] = "emu"
    with fails("y_test has label emu in row 4", "cat, dog, fox"):
        load("arrays", path=write_npz(float_arrays, **changed))
    changed["y_train"][5] = " "
    with fails("y_train has an empty label in row 5"):
        load("arrays", path=write_npz(float_arrays, **changed))


def test_the_user_says_which(float_arrays: Arrays, write_npz: Any, fails: Fails) -> None:
    path = write_npz(float_arrays, **labels(float_arrays, lambda y: y.astype(float)))
    for given in (path, write_npz(float_arrays)):
        data = load("arrays", path=given, task="regression")
        assert (data.task, data.notes) == ("regression", ())
        np.testing.assert_array_equal(data.test.y[:, 0].numpy(), float_arrays["y_test"])
    path = write_npz(float_arrays, **labels(float_arrays, lambda y: 2.0 * y - 1))
    said = load("arrays", path=path)
    assert said.task == "regression"
    assert "-1, 1, 3 as float64: taken as numbers to predict" in said.notes[0]
    assert "data.task=classification" in said.notes[0]
    data = load("arrays", path=path, task="classification")
    assert (data.class_names, data.notes) == (("-1", "1", "3"), ())
    np.testing.assert_array_equal(data.test.y.numpy(), float_arrays["y_test"])
    y = 0.5 * float_arrays["y_train"]
    with fails("y_train has 0.5 in row 1", "no class label", "data.task=regression"):
        load("arrays", path=write_npz(float_arrays, y_train=y, y_test=y[:20]),
             task="classification")  # fmt: skip
    with fails("task=clasification", "classification or regression"):
        load("arrays", path=path, task="clasification")


def test_as_many_classes_as_rows_are_said(float_arrays: Arrays, write_npz: Any) -> None:
    y = np.arange(60)
    said = load("arrays", path=write_npz(float_arrays, y_train=y, y_test=y[:20])).notes
    assert "60 classes in 60 rows: data.task=regression" in said[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_last(
    channels: int, dtype: Any, float_arrays: Arrays, write_npz: Any, rng: np.random.Generator
) -> None:
    x = rng.integers(0, 256, (80, 7, 9, channels)).astype(dtype)
    data = load("arrays", path=write_npz(float_arrays, x_train=x[:60], x_test=x[60:]),
                val_fraction=0)  # fmt: skip
    assert data.input_shape == (channels, 7, 9)
    np.testing.assert_array_equal(data.train.x.numpy(), x[:60].transpose(0, 3, 1, 2))
    assert f"{channels} channels of 7x9" in data.notes[0]
    assert data.normalisation.mean.shape[0] == channels
    first = load("arrays", path=write_npz(float_arrays, x_train=x[:60], x_test=x[60:]),
                 channels="first")  # fmt: skip
    assert (first.input_shape, first.notes) == ((7, 9, channels), ())


def test_what_may_be_either_is_asked(
    float_arrays: Arrays, write_npz: Any, rng: np.random.Generator, fails: Fails
) -> None:
    x = rng.integers(0, 256, (80, 8, 8, 6), dtype=np.uint8)
    path = write_npz(float_arrays, x_train=x[:60], x_test=x[60:])
    with fails("8 channels of 8x6 or 6 channels of 8x8", "data.channels=first or last"):
        load("arrays", path=path)
    assert load("arrays", path=path, channels="last").input_shape == (6, 8, 8)
    x = rng.normal(size=(80, 8, 8))
    data = load("arrays", path=write_npz(float_arrays, x_train=x[:60], x_test=x[60:]))
    assert "sequences of 8 steps of 8 features; gray pictures are (m, 1, 8, 8)" in data.notes[0]
    with fails("channels=last is of pictures", "(60, 4)"):
        load("arrays", path=write_npz(float_arrays), channels="last")


def test_validation_arrays_are_the_validation_split(
    float_arrays: Arrays, write_npz: Any, fails: Fails
) -> None:
    x, y = float_arrays["x_test"][:7], float_arrays["y_test"][:7]
    data = load("arrays", path=write_npz(float_arrays, x_val=x, y_val=y))
    assert data.val is not None
    np.testing.assert_array_equal(data.val.y.numpy(), y)
    assert len(data.train) == 60
    assert "none is cut from train" in data.notes[0]
    with fails("no array y_val"):
        load("arrays", path=write_npz(float_arrays, x_val=x))
    with fails("x_val has 7 rows but y_val 6"):
        load("arrays", path=write_npz(float_arrays, x_val=x, y_val=y[:6]))


def test_what_is_left_out_is_said(float_arrays: Arrays, write_npz: Any) -> None:
    said = load("arrays", path=write_npz(float_arrays, ids=np.arange(60))).notes
    assert said == ("arrays beside x_train, y_train, x_test, y_test are left out: ids",)


def test_splits_on_other_scales_are_said(float_arrays: Arrays, write_npz: Any) -> None:
    x = float_arrays["x_test"] / 255
    said = load("arrays", path=write_npz(float_arrays, x_test=x)).notes
    assert "are they in the same units?" in said[0]


@pytest.mark.parametrize("name", ["X_train", "xtrain", "X_TRAIN", "train_x"])
def test_names_that_are_nearly_right(
    name: str, float_arrays: Arrays, write_npz: Any, fails: Fails
) -> None:
    others = {"Y_train": float_arrays["y_train"], name: float_arrays["x_train"]}
    with fails("no array x_train", f"Did you mean '{name}'?"):
        load("arrays", path=write_npz(float_arrays, x_train=None, **others))
