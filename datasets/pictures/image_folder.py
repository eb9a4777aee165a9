"""The user's own pictures: `train/<class>/*` and `test/<class>/*` in a folder or a zip."""

from __future__ import annotations

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..assembly import Pair, Samples, assemble
from ..classes import classes_of_labels
from ..dataset import Dataset
from ..digest import digest_of
from ..errors import DatasetError, reason
from ..source import Progress, Request, Source
from .decoding import Picture, decode, notes
from .layout import Layout, check_classes, layout
from .store import PictureStore, open_store

# Pillow lets go of the interpreter while it decodes, so threads help where that is what takes long.
# Threads on 32x32 pictures take half as long again as one, waiting for the interpreter.
_LARGE = 128 * 128  # pixels a picture
_CHUNK = 64  # pictures a task


def _load(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    store = open_store(path)
    found = layout(store, path)
    if request.class_names is None:
        check_classes(path, found)
    classes = found.classes()
    classes_of_labels(request, classes)  # refused, if at all, before all pictures are decoded
    files = [file for split in found.files for file in found.of(split)]
    x, digests, said = _decode_all(store, path, files, request.progress)
    pairs: dict[str, Pair] = {}
    start = 0
    for split in found.files:
        m = len(found.of(split))
        # Cloned, so that a split does not keep the memory of the others alive.
        pairs[split] = x[start : start + m].clone(), _labels(found, split, classes)
        start += m
    by_name = dict(zip(files, digests, strict=True))
    parts = [part for file in files for part in (_below(found, file), by_name[file])]
    samples = Samples(
        pairs["train"],
        pairs["test"],
        pairs.get("val"),
        classes,
        # Of the files: other versions of a decoder may round pixels otherwise.
        digest_of(*parts),
        [*said, *found.notes(), *_twice(found, by_name)],
    )
    return assemble(request, samples)


def _below(found: Layout, file: str) -> str:
    """`train/cat/1.jpg`: the name of a file whatever folders are around the splits."""
    return "/".join(file.split("/")[-3:])


def _labels(found: Layout, split: str, classes: tuple[str, ...]) -> Tensor:
    counts = [len(found.files[split].get(name, ())) for name in classes]
    return torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))


def _twice(found: Layout, digests: dict[str, bytes]) -> list[str]:
    """What is said where the same file is in train and in another split."""
    train = {digests[file]: file for file in found.of("train")}
    said = []
    for split in found.files:
        if split == "train":
            continue
        again = [file for file in found.of(split) if digests[file] in train]
        if again:
            said.append(
                f"pictures of {split}/ that are in train/, too: {len(again):,} ({again[0]} is "
                f"{train[digests[again[0]]]} again); metrics of {split} flatter the model"
            )
    return said


def _decode_all(
    store: PictureStore, path: Path, files: list[str], progress: Progress
) -> tuple[Tensor, list[bytes], list[str]]:
    """uint8 (m, c, h, w), c 1 where every picture is gray, else 3; SHA-256 of each; notes."""

    def decode_chunk(start: int) -> list[tuple[Picture, bytes]]:
        return [_decode(store, path, file) for file in files[start : start + _CHUNK]]

    pictures: list[Picture] = []
    digests: list[bytes] = []
    with warnings.catch_warnings():
        # What Pillow warns of (odd EXIF, superfluous bytes) no viewer mentions either.
        warnings.filterwarnings("ignore", module="PIL")
        is_large = _decode(store, path, files[0])[0].pixels[0].size >= _LARGE
        with ThreadPoolExecutor(min(8, torch.get_num_threads()) if is_large else 1) as pool:
            for chunk in pool.map(decode_chunk, range(0, len(files), _CHUNK)):
                pictures += [picture for picture, _ in chunk]
                digests += [digest for _, digest in chunk]
                progress(f"decoding {path.name}", len(pictures), len(files))
    first = pictures[0].pixels.shape[1:]
    for file, picture in zip(files, pictures, strict=True):
        if picture.pixels.shape[1:] != first:
            raise DatasetError(
                f"{path}: {file} is {_size(picture.pixels.shape[1:])} but {files[0]} is "
                f"{_size(first)} (width x height): all pictures must have one size; resize or crop "
                "them first."
            )
    channels = max(picture.pixels.shape[0] for picture in pictures)
    x = np.empty((len(pictures), channels, *first), dtype=np.uint8)
    for row, picture in enumerate(pictures):
        x[row] = picture.pixels  # a gray picture among coloured ones is broadcast to three channels
    try:
        return torch.from_numpy(x), digests, notes(pictures)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}.") from None


def _decode(store: PictureStore, path: Path, file: str) -> tuple[Picture, bytes]:
    """One picture, and the SHA-256 of its file."""
    try:
        data = store.read(file)
        return decode(data), hashlib.sha256(data).digest()
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise DatasetError(
            f"{path}: {file} cannot be decoded ({reason(error)}): replace or remove it."
        ) from None


def _size(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width}x{height}"


IMAGE_FOLDER = Source(
    help="your own pictures: path = a folder or .zip of train/<class>/*, test/<class>/* and, if "
    "you like, val/<class>/*; works offline",
    load=_load,
    is_ready=lambda root: False,
    kind="pictures",
    needs_path=True,
)
