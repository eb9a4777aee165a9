"""The user's own arrays: an `.npz` with x_train, y_train, x_test, y_test."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..assembly import Samples, assemble
from ..dataset import Dataset
from ..errors import DatasetError, close_match, reason, shortlist
from ..options import choice
from ..source import Request, Source
from .inputs import inputs
from .labels import targets

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_VALIDATION = ("x_val", "y_val")
_WANTED = "an .npz with x_train, y_train, x_test, y_test"
# What NumPy raises on files that are absent, damaged or of another kind.
_READ_ERRORS = (
    OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _load(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    task = choice(request, "task", ("classification", "regression"))
    channels = choice(request, "channels", ("first", "last"))
    notes: list[str] = []
    arrays = _read(path, notes)
    _check_shapes(path, arrays)
    x = inputs(path, _of(arrays, "x"), channels, notes)
    y = targets(path, _of(arrays, "y"), task, notes, request.class_names)
    pairs = {split: (x[split], y.of[split]) for split in x}
    samples = Samples(
        pairs["train"], pairs["test"], pairs.get("val"), y.class_names, notes=tuple(notes)
    )
    return assemble(request, samples)


def _of(arrays: dict[str, np.ndarray], letter: str) -> dict[str, np.ndarray]:
    """The inputs ("x") or targets ("y") by split, train first."""
    return {name[2:]: array for name, array in arrays.items() if name[0] == letter}


def _read(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
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
        names = list(_NAMES)
        if any(name in file.files for name in _VALIDATION):
            names += _VALIDATION
        others = [other for other in file.files if other not in names]
        for name in names:
            if name not in file.files:
                # Y_train is near x_train by its letters, and the wrong one.
                near = [o for o in others if all(p in o.casefold() for p in name.split("_"))]
                raise DatasetError(
                    f"{path} has no array {name} (it has: {shortlist(file.files)})."
                    f"{close_match(name, near)} Store {_WANTED}, and x_val with y_val if you "
                    "like."
                )
        if others:
            notes.append(f"arrays beside {', '.join(names)} are left out: {shortlist(others)}")
        return {name: _array(path, name, file) for name in names}


def _array(path: Path, name: str, file: np.lib.npyio.NpzFile) -> np.ndarray:
    try:
        array = file[name]
    except _READ_ERRORS as error:
        if "allow_pickle" in str(error):
            raise DatasetError(
                f"{path}: {name} holds Python objects: convert it to numbers (labels may be words, "
                "astype(str)) before numpy.savez."
            ) from None
        raise DatasetError(
            f"{path}: {name} is damaged ({reason(error)}): store the file again."
        ) from None
    # A member that does not begin like an .npy comes as bytes.
    kind = array.dtype.kind if isinstance(array, np.ndarray) else "bytes"
    if kind not in ("biufUS" if name[0] == "y" else "biuf"):
        what = array.dtype if isinstance(array, np.ndarray) else kind
        raise DatasetError(
            f"{path}: {name} is of type {what}: store integers or floating-point numbers."
        )
    return array


def _check_shapes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Samples first, as many labels as samples, the same sample in every split."""
    splits = [name[2:] for name in arrays if name[0] == "x"]
    for split in splits:
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
        train = arrays[f"{letter}_train"]
        for split in splits:
            other = arrays[f"{letter}_{split}"]
            if train.shape[1:] != other.shape[1:]:
                raise DatasetError(
                    f"{path}: {what} differ in shape: {letter}_train {train.shape}, "
                    f"{letter}_{split} {other.shape}."
                )


ARRAYS = Source(
    help="your own arrays: path = an .npz with x_train, y_train, x_test, y_test; works offline",
    load=_load,
    is_ready=lambda root: False,
    kind="arrays",
    needs_path=True,
    options=("task", "channels"),
)
