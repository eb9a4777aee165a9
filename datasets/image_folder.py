"""The user's own pictures: `train/<class>/*` and `test/<class>/*` in a folder or a zip."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .assembly import assemble
from .dataset import Dataset
from .errors import DatasetError, reason, shortlist
from .picture_store import PictureStore, open_store
from .source import Progress, Request, Source

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Only these decoders: Pillow knows formats that start other programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
# Pillow lets go of the interpreter while it decodes, so threads help where that is what takes long.
# Threads on 32x32 pictures take half as long again as one, waiting for the interpreter.
_LARGE = 128 * 128  # pixels a picture
_CHUNK = 64  # pictures a task


def _load(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    store = open_store(path)
    top = _top(store, path)
    train = _files_by_class(store, path, top, "train")
    test = _files_by_class(store, path, top, "test")
    classes = tuple(train)
    for name in test:
        if name not in train:
            raise DatasetError(
                f"{path}: class '{name}' is in test/ but not in train/ ({shortlist(classes)}): "
                "add pictures of it to train/, or remove it from test/."
            )
    train_files = [file for files in train.values() for file in files]
    test_files = [file for files in test.values() for file in files]
    x = _decode_all(store, path, train_files + test_files, request.progress)
    m = len(train_files)
    # Cloned, so that the test split does not keep the memory of the train pictures alive.
    return assemble(
        request,
        (x[:m], _labels(train, classes)),
        (x[m:].clone(), _labels(test, classes)),
        class_names=classes,
    )


def _top(store: PictureStore, path: Path) -> str:
    """The folder that has train/ and test/: the top ('') or the only folder in it."""
    folders, _ = store.children("")
    top = ""
    if len(folders) == 1 and folders[0] not in ("train", "test"):
        below, _ = store.children(folders[0])
        if "train" in below or "test" in below:
            top, folders = folders[0], below
    for split in ("train", "test"):
        if split not in folders:
            where = path / top if top else path
            raise DatasetError(
                f"{where} has no folder {split}/ (it has: {shortlist(folders)}): expected "
                "train/<class>/* and test/<class>/*."
            )
    return f"{top}/" if top else ""


def _files_by_class(store: PictureStore, path: Path, top: str, split: str) -> dict[str, list[str]]:
    """The pictures of each class, classes and pictures in alphabetical order."""
    folder = f"{top}{split}"
    classes, loose = store.children(folder)
    if stray := _pictures(loose):
        raise DatasetError(
            f"{path}: {folder}/{stray[0]} lies in no class folder: expected {split}/<class>/*."
        )
    if not classes:
        raise DatasetError(f"{path}: {folder}/ has no class folders: expected {split}/<class>/*.")
    found = {}
    for name in classes:
        folders, files = store.children(f"{folder}/{name}")
        if folders:
            # Left out silently, these pictures would be missed by nobody.
            raise DatasetError(
                f"{path}: {folder}/{name} has a folder '{folders[0]}' in it, where pictures are "
                f"expected: {split}/<class>/*."
            )
        pictures = _pictures(files)
        if not pictures:
            raise DatasetError(
                f"{path}: {folder}/{name} has no pictures ({', '.join(_SUFFIXES)}): add some, "
                "or remove the folder."
            )
        found[name] = [f"{folder}/{name}/{file}" for file in pictures]
    return found


def _pictures(files: list[str]) -> list[str]:
    return [file for file in files if file.lower().endswith(_SUFFIXES)]


def _labels(files_by_class: dict[str, list[str]], classes: tuple[str, ...]) -> Tensor:
    counts = [len(files_by_class.get(name, ())) for name in classes]
    return torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))


def _decode_all(store: PictureStore, path: Path, files: list[str], progress: Progress) -> Tensor:
    """uint8 (m, c, h, w): c is 1 where every picture is gray, else 3."""

    def decode_chunk(start: int) -> list[np.ndarray]:
        return [_decode(store, path, file) for file in files[start : start + _CHUNK]]

    pictures: list[np.ndarray] = []
    is_large = _decode(store, path, files[0])[0].size >= _LARGE
    with ThreadPoolExecutor(min(8, torch.get_num_threads()) if is_large else 1) as pool:
        for chunk in pool.map(decode_chunk, range(0, len(files), _CHUNK)):
            pictures += chunk
            progress(f"decoding {path.name}", len(pictures), len(files))
    first = pictures[0].shape[1:]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape[1:] != first:
            raise DatasetError(
                f"{path}: {file} is {_size(picture.shape[1:])} but {files[0]} is {_size(first)} "
                "(width x height): all pictures must have one size; resize or crop them first."
            )
    channels = max(picture.shape[0] for picture in pictures)
    x = np.empty((len(pictures), channels, *first), dtype=np.uint8)
    for row, picture in enumerate(pictures):
        x[row] = picture  # a gray picture among coloured ones is broadcast to three channels
    return torch.from_numpy(x)


def _decode(store: PictureStore, path: Path, file: str) -> np.ndarray:
    """One picture as uint8 (1 or 3, h, w)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(store.read(file)), formats=_FORMATS) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"it has more than 8 bits a channel (mode {picture.mode})")
            mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
            # Converting to the mode it has would copy it.
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
            return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise DatasetError(
            f"{path}: {file} cannot be decoded ({reason(error)}): replace or remove it."
        ) from None


def _size(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width}x{height}"


IMAGE_FOLDER = Source(
    help="your own pictures: path = a folder or .zip of train/<class>/* and test/<class>/*; "
    "works offline",
    load=_load,
    is_ready=lambda root: False,
    needs_path=True,
)
