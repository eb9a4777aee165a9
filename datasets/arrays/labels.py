"""What the y of the user's arrays are: classes (numbers, words, one-hot) or regression targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .numbers import floats

_CHOOSE = "data.task=classification"
_FEW = 20  # different whole numbers: more are counts rather than classes


@dataclass(frozen=True)
class Targets:
    """Of each split labels int64 (m,), or regression targets float64 (m, q); () of class names."""

    of: dict[str, Tensor]
    class_names: tuple[str, ...]


def targets(
    path: Path,
    arrays: dict[str, np.ndarray],
    task: str | None,
    notes: list[str],
    known: tuple[str, ...] | None = None,
) -> Targets:
    """The targets of each split.

    task: "classification" or "regression", as the user says; None: recognised
    known: the classes of the model that the data are for; the data may lack some

    Raises DatasetError with the array and the row where they are neither.
    """
    _check_kinds(path, arrays)
    arrays = {split: _column(array) for split, array in arrays.items()}
    is_word = arrays["train"].dtype.kind in "US"
    if task == "regression":
        if is_word:
            raise DatasetError(f"{path}: y_train holds words, which no regression can predict.")
        return _regression(path, arrays)
    if is_word:
        return _counted(path, {split: _words(path, split, array)
                               for split, array in arrays.items()}, known)  # fmt: skip
    if _is_one_hot(arrays):
        notes.append(
            f"y_train {arrays['train'].shape} is one-hot: taken as {arrays['train'].shape[1]} "
            "classes (data.task=regression predicts the numbers)"
        )
        return _one_hot(arrays)
    if arrays["train"].dtype.kind == "f":
        if task is None and known is None and not _float_classes(arrays, notes):
            return _regression(path, arrays)
        arrays = {split: _whole(path, split, array) for split, array in arrays.items()}
    _check_labels(path, arrays, is_chosen=task is not None or known is not None)
    if len(np.unique(arrays["train"])) > max(_FEW, len(arrays["train"]) // 2):
        notes.append(
            f"y_train has {len(np.unique(arrays['train'])):,} classes in "
            f"{len(arrays['train']):,} rows: data.task=regression predicts numbers"
        )
    return _counted(path, arrays, known)


def _check_kinds(path: Path, arrays: dict[str, np.ndarray]) -> None:
    def kind(array: np.ndarray) -> str:
        return {"f": "float", "U": "word", "S": "word"}.get(array.dtype.kind, "integer")

    train = arrays["train"]
    for split, array in arrays.items():
        if kind(array) != kind(train):
            raise DatasetError(
                f"{path}: y_train is {train.dtype} but y_{split} is {array.dtype}: make both "
                "integers or words for class labels, or both floats for regression targets."
            )


def _column(array: np.ndarray) -> np.ndarray:
    """(m, 1) as (m,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _regression(path: Path, arrays: dict[str, np.ndarray]) -> Targets:
    # Scaled before they are float32, so that targets far from zero keep their digits.
    return Targets(
        {split: floats(path, f"y_{split}", array.reshape(len(array), -1), np.float64)
         for split, array in arrays.items()},
        (),
    )  # fmt: skip


def _words(path: Path, split: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1:
        raise DatasetError(
            f"{path}: y_{split} holds words in shape {array.shape}: give one label a sample, (m,)."
        )
    words = np.char.strip(np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array)
    if (words == "").any():
        raise DatasetError(
            f"{path}: y_{split} has an empty label in row {int((words == '').argmax())}: name the "
            "class or remove the row."
        )
    return np.asarray(words)


def _is_one_hot(arrays: dict[str, np.ndarray]) -> bool:
    return all(
        array.ndim == 2
        and bool(((array == 0) | (array == 1)).all())
        and bool((np.asarray(array, np.float64).sum(1) == 1).all())
        for array in arrays.values()
    )


def _one_hot(arrays: dict[str, np.ndarray]) -> Targets:
    labels = {split: torch.from_numpy(array.argmax(1).astype(np.int64))
              for split, array in arrays.items()}  # fmt: skip
    return Targets(labels, tuple(str(label) for label in range(arrays["train"].shape[1])))


def _float_classes(arrays: dict[str, np.ndarray], notes: list[str]) -> bool:
    """Whether floats are class labels 0.0, 1.0, … k-1; what is taken for granted is said."""
    train = arrays["train"]
    if any(a.ndim != 1 or not np.isfinite(a).all() or (a != np.rint(a)).any()
           for a in arrays.values()):  # fmt: skip
        return False
    values = np.unique(train)
    if len(values) > _FEW or len(train) < 2 * len(values) or len(values) < 2:
        return False
    what = f"y_train holds the {len(values)} whole numbers {_listed(values)} as {train.dtype}"
    foreign = any(np.setdiff1d(array, values).size for array in arrays.values())
    if not foreign and np.array_equal(values, np.arange(len(values))):
        notes.append(f"{what}: taken as class labels (data.task=regression predicts the numbers)")
        return True
    notes.append(f"{what}: taken as numbers to predict ({_CHOOSE} makes each a class)")
    return False


def _listed(values: np.ndarray) -> str:
    shown = [f"{value:g}" for value in values]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:3], "…", shown[-1]])


def _whole(path: Path, split: str, array: np.ndarray) -> np.ndarray:
    """Class labels that are stored as floats."""
    bad = ~np.isfinite(array) | (array != np.rint(array))
    if bad.any():
        first = tuple(int(axis[0]) for axis in np.nonzero(bad))
        raise DatasetError(
            f"{path}: y_{split} has {array[first]:g} in row {first[0]}, which is no class label: "
            "give whole numbers or words, or data.task=regression."
        )
    return array.astype(np.int64)


def _check_labels(path: Path, arrays: dict[str, np.ndarray], is_chosen: bool) -> None:
    """Labels of train are 0..k-1 unless the user chose classes; those of the others among them."""
    train = arrays["train"]
    if train.ndim != 1:
        raise DatasetError(
            f"{path}: y_train holds integers of shape {train.shape}: give (m,) class labels "
            "0..k-1 (argmax, where they are one-hot), or data.task=regression."
        )
    if is_chosen:
        return
    labels = np.unique(train)
    gaps = labels != np.arange(len(labels))
    if gaps.any():
        # Below zero, or beyond a label that is nobody's.
        label, expected = labels[gaps.argmax()], int(gaps.argmax())
        row = int((train == label).argmax())
        why = "it is negative" if label < 0 else f"no row has label {expected}"
        raise DatasetError(
            f"{path}: y_train has label {label} in row {row}, but {why}: class labels must be "
            f"0..k-1; {_CHOOSE} makes each number a class, data.task=regression predicts it."
        )


def _counted(path: Path, arrays: dict[str, np.ndarray], known: tuple[str, ...] | None) -> Targets:
    """Labels counted from 0 in the order of their values, and their names."""
    train = arrays["train"]
    values = np.unique(train)
    for split, array in arrays.items():
        foreign = np.setdiff1d(array, values)
        if known is not None:  # the model knows what train here lacks
            values = np.union1d(values, foreign)
        elif foreign.size:
            row = int((array == foreign[0]).argmax())
            among = f"0..{len(values) - 1}" if train.dtype.kind in "biu" else ", ".join(values[:10])
            raise DatasetError(
                f"{path}: y_{split} has label {foreign[0]} in row {row}, which y_train has "
                f"nowhere: its labels are {among}."
            )
    labels = {split: torch.from_numpy(np.searchsorted(values, array).astype(np.int64))
              for split, array in arrays.items()}  # fmt: skip
    if train.dtype.kind == "b":
        values = values.astype(np.int64)
    return Targets(labels, tuple(str(value) for value in values))
