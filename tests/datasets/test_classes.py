"""Labels of other data, matched by name with the classes of the model that they are for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idl_datasets import load

Fails = Callable[..., Any]


def pictures(folder: Path, *kinds: str, test: tuple[str, ...] | None = None) -> Path:
    """Two pictures a class and split, each of the shade that its name begins with."""
    for split, names in (("train", kinds), ("test", kinds if test is None else test)):
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for number in range(2):
                shade = np.full((4, 4), ord(name[0]), np.uint8)
                Image.fromarray(shade).save(folder / split / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("there", "labels"),
    [
        (("cat", "dog"), [0, 0, 2, 2]),
        (("dog", "ant"), [1, 1, 2, 2]),
        (("dog",), [2, 2]),
        (("ant", "cat", "dog"), [1, 1, 0, 0, 2, 2]),
    ],
)
def test_labels_are_those_of_the_model(
    there: tuple[str, ...], labels: list[int], tmp_path: Path
) -> None:
    names = ("cat", "ant", "dog")  # in no order of theirs
    data = load("image_folder", path=pictures(tmp_path, *there), val_fraction=0, class_names=names)
    assert data.class_names == names
    assert data.output_dim == 3
    assert data.test.y.tolist() == labels
    for x, y in zip(data.test.x, data.test.y, strict=True):
        assert chr(int(x[0, 0, 0])) == names[y][0]


def test_another_class_is_refused(tmp_path: Path, fails: Fails) -> None:
    path = pictures(tmp_path, "dog", "zebra")
    with fails(path, "class 'zebra' is none of those", "(cat, dog)"):
        load("image_folder", path=path, class_names=("cat", "dog"))
    with fails("class 'dog' is none of those", "Did you mean 'dogs'?"):
        load("image_folder", path=path, class_names=("dogs", "zebra"))
    with fails("data=digits does not fit: class '0' is none of those"):
        load("digits", class_names=tuple("abcdefghij"))


def test_one_class_is_nothing_to_learn(tmp_path: Path, fails: Fails) -> None:
    path = pictures(tmp_path, "dog")
    with fails(path, "'dog' is the only class"):
        load("image_folder", path=path, val_fraction=0)


def test_a_class_folder_without_pictures(tmp_path: Path, fails: Fails) -> None:
    path = pictures(tmp_path, "cat", "dog", test=("dog",))
    (path / "test" / "cat").mkdir()
    (path / "test" / "zebra").mkdir()
    assert load("image_folder", path=path, val_fraction=0).test.y.tolist() == [1, 1]
    shutil.rmtree(path / "test" / "dog")
    with fails(path, "test/ has no pictures"):
        load("image_folder", path=path, val_fraction=0)
    for file in (path / "train" / "dog").iterdir():
        file.unlink()
    with fails("train/dog has no pictures"):
        load("image_folder", path=path, val_fraction=0)


def test_a_class_in_test_alone_is_one_that_the_model_knows(tmp_path: Path, fails: Fails) -> None:
    path = pictures(tmp_path, "cat", "dog", test=("dog", "fox"))
    with fails("class 'fox' is in test/ but not in train/"):
        load("image_folder", path=path, val_fraction=0)
    names = ("cat", "dog", "fox")
    assert load("image_folder", path=path, val_fraction=0, class_names=names).test.y.tolist() == [
        1,
        1,
        2,
        2,
    ]


def test_letters_are_the_same_however_composed(tmp_path: Path) -> None:
    composed, apart = "b\u00e4r", "ba\u0308r"  # as Windows and as macOS store an ä
    path = pictures(tmp_path, "ant", composed, test=("ant", apart))
    data = load("image_folder", path=path, val_fraction=0)
    assert data.class_names == ("ant", composed)
    assert data.test.y.tolist() == [0, 0, 1, 1]


def test_labels_of_arrays(write_npz: Any, float_arrays: Any, fails: Fails) -> None:
    words = np.array(["dog", "cat", "fox"])
    y = {name: words[float_arrays[name]] for name in ("y_train", "y_test")}
    path = write_npz(float_arrays, **y)
    assert load("arrays", path=path).class_names == ("cat", "dog", "fox")
    data = load("arrays", path=path, class_names=("fox", "dog", "cat", "ant"))
    assert [data.class_names[label] for label in data.test.y] == y["y_test"].tolist()
    with fails("class 'fox' is none of those"):
        load("arrays", path=path, class_names=("dog", "cat"))
    path = write_npz(float_arrays)
    with fails("class '0' is none of those", "Store labels as the words"):
        load("arrays", path=path, class_names=("dog", "cat", "fox"))
    some = {"y_train": np.full(60, 2), "y_test": np.arange(20) % 2 + 1}
    data = load("arrays", path=write_npz(float_arrays, **some), class_names=("0", "1", "2"))
    np.testing.assert_array_equal(data.test.y.numpy(), some["y_test"])


def test_digits_for_a_model_of_digits() -> None:
    data, same = load("digits"), load("digits", class_names=tuple("9876543210"))
    np.testing.assert_array_equal(same.test.y.numpy(), 9 - data.test.y.numpy())
