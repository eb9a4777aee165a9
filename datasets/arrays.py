"""The user's own arrays: an `.npz` with x_train, y_train, x_test, y_test."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .assembly import assemble
from .dataset import Dataset
from .errors import DatasetError, close_match, reason, shortlist
from .source import Request, Source

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_WANTED = "an .npz with x_train, y_train, x_test, y_test"
# What NumPy raises on files that are absent, damaged or of another kind.
_READ_ERRORS = (
    OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _load(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    arrays = _read(path)
    _check_shapes(path, arrays)
    x_train, x_test = _inputs(path, arrays)
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    if _is_float(y_train) != _is_float(y_test):
        raise DatasetError(
            f"{path}: y_train is {y_train.dtype} but y_test is {y_test.dtype}: make both integer "
            "for class labels, or both float for regression targets."
        )
    if _is_float(y_train):
        train = (x_train, _targets(path, "y_train", y_train))
        test = (x_test, _targets(path, "y_test", y_test))
        return assemble(request, train, test)
    classes = _number_of_classes(path, y_train, y_test)
    return assemble(
        request,
        (x_train, torch.from_numpy(y_train.astype(np.int64))),
        (x_test, torch.from_numpy(y_test.astype(np.int64))),
        class_names=tuple(str(label) for label in range(classes)),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise DatasetError(f"{path} does not exist: set data.path to {_WANTED}.")
    try:
        if not zipfile.is_zipfile(path):  # which np.load would take for a pickle
            raise zipfile.BadZipFile("it is not a zip file")
        # Never a pickle: it could run code. np.savez stores none unless an array holds objects.
        file = np.load(path, allow_pickle=False)
    except _READ_ERRORS as error:
        raise DatasetError(
            f"{path} is damaged or not {_WANTED} ({reason(error)}): numpy.savez makes one."
        ) from None
    with file:
        for name in _NAMES:
            if name not in file.files:
                others = [other for other in file.files if other not in _NAMES]
                raise DatasetError(
                    f"{path} has no array {name} (it has: {shortlist(file.files)})."
                    f"{close_match(name, others)} Store {_WANTED}."
                )
        return {name: _array(path, name, file) for name in _NAMES}


def _array(path: Path, name: str, file: np.lib.npyio.NpzFile) -> np.ndarray:
    try:
        array = file[name]
    except _READ_ERRORS as error:
        if "allow_pickle" in str(error):
            raise DatasetError(
                f"{path}: {name} holds Python objects: convert it to numbers before numpy.savez."
            ) from None
        raise DatasetError(
            f"{path}: {name} is damaged ({reason(error)}): store the file again."
        ) from None
    # A member that does not begin like an .npy comes as bytes.
    kind = array.dtype.kind if isinstance(array, np.ndarray) else "bytes"
    if kind not in "biuf":
        what = array.dtype if isinstance(array, np.ndarray) else kind
        raise DatasetError(
            f"{path}: {name} is of type {what}: store integers or floating-point numbers."
        )
    return array


def _check_shapes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Samples first, as many labels as samples, the same sample in train and test."""
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if not 2 <= x.ndim <= 4:
            raise DatasetError(
                f"{path}: x_{split} has shape {x.shape}: give 2 to 4 dimensions, samples first, "
                "such as (m, features) or (m, channels, height, width)."
            )
        if x.size == 0:
            raise DatasetError(f"{path}: x_{split} has shape {x.shape}: there is nothing in it.")
        if y.ndim not in (1, 2) or y.size == 0:
            raise DatasetError(
                f"{path}: y_{split} has shape {y.shape}: give (m,) class labels, or (m,) or (m, q) "
                "regression targets."
            )
        if len(x) != len(y):
            raise DatasetError(
                f"{path}: x_{split} has {len(x):,} rows but y_{split} {len(y):,}: give one label "
                "or target a sample."
            )
    for letter, what in (("x", "samples"), ("y", "targets")):
        train, test = arrays[f"{letter}_train"], arrays[f"{letter}_test"]
        if train.shape[1:] != test.shape[1:]:
            raise DatasetError(
                f"{path}: {what} differ in shape: {letter}_train {train.shape}, "
                f"{letter}_test {test.shape}."
            )


def _inputs(path: Path, arrays: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    train, test = arrays["x_train"], arrays["x_test"]
    bytes_in = [array.dtype == np.uint8 for array in (train, test)]
    if bytes_in[0] != bytes_in[1]:
        # 0..255 on one side and most likely 0..1 on the other: no figure would say so.
        raise DatasetError(
            f"{path}: x_train is {train.dtype} but x_test is {test.dtype}: store both as uint8 or "
            "both as floats, on one scale."
        )
    if all(bytes_in):
        return (
            torch.from_numpy(np.ascontiguousarray(train)),
            torch.from_numpy(np.ascontiguousarray(test)),
        )
    return (
        _floats(path, "x_train", train, np.float32),
        _floats(path, "x_test", test, np.float32),
    )


def _floats(path: Path, name: str, array: np.ndarray, kind: type[np.floating[Any]]) -> Tensor:
    with np.errstate(over="ignore"):  # found just below, and named
        narrow = np.asarray(array, dtype=np.float32)
    finite = np.isfinite(narrow).reshape(len(narrow), -1).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        if np.isfinite(array[row]).all():
            what = "a number too large for float32"
        else:
            what = "NaN" if np.isnan(array[row]).any() else "an infinite number"
        raise DatasetError(
            f"{path}: {name} holds {what} in row {row} (of {int((~finite).sum()):,} such rows): "
            "remove or replace it."
        )
    return torch.from_numpy(np.ascontiguousarray(narrow if kind is np.float32 else array, kind))


def _is_float(array: np.ndarray) -> bool:
    return bool(array.dtype.kind == "f")


def _targets(path: Path, name: str, y: np.ndarray) -> Tensor:
    # Scaled before they are float32, so that targets far from zero keep their digits.
    return _floats(path, name, y.reshape(len(y), -1), np.float64)


def _number_of_classes(path: Path, y_train: np.ndarray, y_test: np.ndarray) -> int:
    """k, where the labels of train are exactly 0..k-1 and those of test among them."""
    if y_train.ndim != 1:
        raise DatasetError(
            f"{path}: y_train holds integers of shape {y_train.shape}: give (m,) class labels "
            "0..k-1 (argmax, where they are one-hot), or floats for regression."
        )
    labels = np.unique(y_train)
    gaps = labels != np.arange(len(labels))
    if gaps.any():
        # Below zero, or beyond a label that is nobody's.
        label, expected = labels[gaps.argmax()], int(gaps.argmax())
        row = int((y_train == label).argmax())
        why = "it is negative" if label < 0 else f"no row has label {expected}"
        raise DatasetError(
            f"{path}: y_train has label {label} in row {row}, but {why}: class labels must be "
            "0..k-1 (numpy.unique(y, return_inverse=True) renumbers; floats mean regression)."
        )
    foreign = np.setdiff1d(y_test, labels)
    if foreign.size:
        row = int((y_test == foreign[0]).argmax())
        raise DatasetError(
            f"{path}: y_test has label {foreign[0]} in row {row}, which y_train has nowhere: "
            f"its labels are 0..{len(labels) - 1}."
        )
    return len(labels)


ARRAYS = Source(
    help="your own arrays: path = an .npz with x_train, y_train, x_test, y_test; works offline",
    load=_load,
    is_ready=lambda root: False,
    needs_path=True,
)
