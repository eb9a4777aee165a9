"""IDX files: what is written after the format's description is read, all else is refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from idl_datasets import DatasetError
from idl_datasets.pictures.idx import read_idx

SAME_FOLDER = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def idx(array: np.ndarray) -> bytes:
    shape = b"".join(struct.pack(">I", length) for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write(folder: Path, data: bytes, packed: bool) -> Path:
    path = folder / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@SAME_FOLDER
@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=3, max_side=6)), st.booleans())
def test_it_reads_what_was_written(tmp_path: Path, array: np.ndarray, packed: bool) -> None:
    found = read_idx(write(tmp_path, idx(array), packed), array.ndim)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


@SAME_FOLDER
@given(st.integers(0, 8 + 4 + 30), st.booleans())
def test_every_truncation_is_found(tmp_path: Path, length: int, packed: bool) -> None:
    data = idx(np.arange(31, dtype=np.uint8).reshape(31))
    data = data[: min(length, len(data) - 1)]
    path = write(tmp_path, data, packed)
    with pytest.raises(DatasetError) as caught:
        read_idx(path, 1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@SAME_FOLDER
@given(st.data())
def test_a_damaged_gzip_is_found(tmp_path: Path, data: st.DataObject) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 9), dtype=np.uint8)
    whole = bytearray(gzip.compress(idx(array), mtime=0))
    kind = data.draw(st.sampled_from(["cut", "flip"]))
    position = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        whole = whole[:position]
    else:
        whole[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "file.gz"
    path.write_bytes(whole)
    try:
        found = read_idx(path, 2)
    except DatasetError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:  # a byte of the header that says nothing of the contents, such as the time
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "begins with nothing"),
        (b"<html>", "3c68746d"),
        (bytes([0, 0, 13, 1]) + struct.pack(">If", 1, 1.0), "00000d01"),
        (idx(np.zeros((2, 2), np.uint8)), "00000802, not the IDX 00000801"),
        (idx(np.zeros(3, np.uint8)) + b"x", "3 bytes and it holds more"),
        (
            bytes([0, 0, 8, 1, 0xFF, 0xFF, 0xFF, 0xFF]) + b"abc",
            "4,294,967,295 bytes and it holds 3",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, what: str, packed: bool) -> None:
    with pytest.raises(DatasetError, match="is damaged: ") as caught:
        read_idx(write(tmp_path, data, packed), 1)
    assert what in str(caught.value)
