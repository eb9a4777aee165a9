"""The digest of a data set: the same for the same content wherever it lies, another for another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_datasets import load
from idl_datasets.digest import digest_of


def test_it_is_of_type_shape_and_values() -> None:
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    same = [array.astype(">i4"), np.asfortranarray(array), array.copy()]
    assert {digest_of(each) for each in same} == {digest_of(array)}
    others = [array.T, array.astype("<i8"), array.astype("<f4"), array.ravel(), array + 1]
    assert len({digest_of(array), *(digest_of(each) for each in others)}) == 6
    assert digest_of("ab", "c") != digest_of("a", "bc")
    values = bytes.fromhex("000000000100000002000000030000000400000005000000")
    content = b"array i4 (2, 3)\n" + values + b"str 2\n\xc3\xa9"
    assert digest_of(array, "é") == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_pictures(tmp_path: Path, write_pictures: Any, zip_folder: Any) -> None:
    write_pictures(tmp_path / "a")
    first = load("image_folder", path=tmp_path / "a").digest
    assert first.startswith("sha256:")
    assert load("image_folder", path=tmp_path / "a", seed=3, val_fraction=0.2).digest == first
    packed = zip_folder(tmp_path / "a", tmp_path / "p.zip", "deep/down/")
    assert load("image_folder", path=packed).digest == first
    (tmp_path / "a" / "train" / "ant").rename(tmp_path / "a" / "train" / "axe")
    (tmp_path / "a" / "test" / "ant").rename(tmp_path / "a" / "test" / "axe")
    assert load("image_folder", path=tmp_path / "a").digest != first


def test_arrays(float_arrays: dict[str, np.ndarray], write_npz: Callable[..., Path]) -> None:
    first = load("arrays", path=write_npz(float_arrays)).digest
    assert load("arrays", path=write_npz(float_arrays), seed=9).digest == first
    x = float_arrays["x_test"].copy()
    x[3, 1] += 1e-3
    assert load("arrays", path=write_npz(float_arrays, x_test=x)).digest != first


@pytest.mark.parametrize("kind", ["timeseries", "text"])
def test_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    lines = [str(number * number % 91) for number in range(400)]

    def digest(lines: list[str], **options: int) -> str:
        path.write_text("\n".join(["y", *lines]))
        return load(kind, path=path, **options).digest

    first = digest(lines)
    size = {"look_back": 7} if kind == "timeseries" else {"block_size": 7}
    assert digest(lines, **size) == first
    assert digest([*lines[:7], "5", *lines[8:]]) != first
    assert digest([*lines, "5"]) != first


def test_spiky() -> None:
    assert load("spiky", seed=1).digest == load("spiky", seed=1, look_back=9).digest
    assert len({load("spiky", seed=1).digest, load("spiky", seed=2).digest,
                load("spiky", seed=1, level=3).digest}) == 3  # fmt: skip
