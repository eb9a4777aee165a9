"""The data sets by name, and loading them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from .arrays.npz import ARRAYS
from .dataset import Dataset
from .errors import DatasetError, close_match, reason
from .pictures.cifar10 import CIFAR10
from .pictures.digits import DIGITS
from .pictures.image_folder import IMAGE_FOLDER
from .pictures.mnist import FASHION_MNIST, MNIST
from .series.spiky import SPIKY
from .series.time_series import TIME_SERIES
from .source import Progress, Request, Source, silent
from .texts.text import PYDOC, SHAKESPEARE, TEXT

SOURCES: dict[str, Source] = {
    "digits": DIGITS,
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "image_folder": IMAGE_FOLDER,
    "arrays": ARRAYS,
    "spiky": SPIKY,
    "timeseries": TIME_SERIES,
    "shakespeare": SHAKESPEARE,
    "text": TEXT,
    "pydoc": PYDOC,
}


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    download: bool = True,
    progress: Progress = silent,
    class_names: Sequence[str] | None = None,
    **options: object,
) -> Dataset:
    """The data set `name` in memory, on the CPU, divided into train, validation and test.

    root: the folder of downloaded data sets (default_root() unless given)
    val_fraction: how much of train becomes the validation split, in [0, 1); 0: none
    seed: of the validation cut; the test split depends on nothing
    path: the user's own data, for the data sets that take it
    download: whether absent files may be fetched
    progress: told about what takes long (downloads, decoding)
    class_names: of the model that the data are for: labels count these, matched by name, and some
        of them may be absent; None: the classes are those of the data
    options: of the data set alone (the look-back of a series, the tokenizer of a text); None is
        as if it were not given

    Raises DatasetError where the name, an argument or the data are wrong or absent.
    """
    source = _source(name)
    if not (isinstance(val_fraction, int | float) and 0 <= val_fraction < 1):
        raise DatasetError(f"val_fraction={val_fraction}: give a number from 0 up to (but not) 1.")
    if source.needs_path and path is None:
        raise DatasetError(f"{name} needs data.path: {source.help}.")
    if not (source.needs_path or source.takes_path) and path is not None:
        own = [known for known, other in SOURCES.items() if other.needs_path or other.takes_path]
        raise DatasetError(
            f"{name} takes no path ({path}): only {' and '.join(own)} read one; remove it."
        )
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in source.options:
            raise DatasetError(
                f"{name} has no option '{option}'.{close_match(option, source.options)} "
                f"It has: {', '.join(source.options) or 'none'}."
            )
    request = Request(
        name=name,
        root=default_root() if root is None else Path(root).expanduser(),
        path=None if path is None else Path(path).expanduser(),
        val_fraction=val_fraction,
        seed=seed,
        download=download,
        progress=progress,
        options=given,
        class_names=tuple(class_names) if class_names else None,
        alternatives=tuple(other for other in embedded_like(name) if other != name),
    )
    try:
        return source.load(request)
    except OSError as error:  # no access, a failing disk: what a source did not foresee
        raise DatasetError(f"{name} cannot be read: {reason(error)}.") from error


def names() -> dict[str, str]:
    """Every data set and one line about it: its size, its source, whether it works offline."""
    return {name: source.help for name, source in SOURCES.items()}


def needs_path(name: str) -> bool:
    """Whether the data set is the user's own, given by `path`."""
    return _source(name).needs_path


def embedded_like(name: str) -> list[str]:
    """The data sets of the same kind as `name` (pictures, series, text) that need no file."""
    kind = _source(name).kind
    return [other for other, source in SOURCES.items() if source.embedded and source.kind == kind]


def is_ready(name: str, root: str | os.PathLike[str] | None = None) -> bool:
    """Whether `load` would find the files of `name` under `root`: cheap, no file is opened.

    False for the data sets that need a path: there is nothing to look at without one.
    """
    return _source(name).is_ready(default_root() if root is None else Path(root).expanduser())


def default_root() -> Path:
    """Where downloaded data sets are kept: $IDL_DATA_ROOT, else the user's cache folder of idl."""
    if given := os.environ.get("IDL_DATA_ROOT"):
        return Path(given).expanduser()
    return platformdirs.user_cache_path("idl", appauthor=False)


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise DatasetError(
            f"there is no data set '{name}'.{close_match(name, SOURCES)} "
            f"Choose from: {', '.join(SOURCES)}."
        )
    return SOURCES[name]
