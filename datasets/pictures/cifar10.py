"""CIFAR-10, from its archive or the folder unpacked from it."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..assembly import Samples, assemble
from ..dataset import Dataset
from ..download import RemoteFile, obtain
from ..errors import DatasetError, reason
from ..source import Request, Source

_ARCHIVE = "cifar-10-python.tar.gz"
_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def _is_unpacked(root: Path) -> bool:
    return all((root / _FOLDER / name).is_file() for name in _TRAIN + _TEST)


def _is_ready(root: Path) -> bool:
    return _is_unpacked(root) or (root / _ARCHIVE).is_file()


def _load(request: Request) -> Dataset:
    from torchvision.datasets import CIFAR10  # a second to import: only where it is used

    archive = request.root / _ARCHIVE
    if not _is_ready(request.root):
        obtain(request, request.root, [RemoteFile(_ARCHIVE, [CIFAR10.url], CIFAR10.tgz_md5)])
    if _is_unpacked(request.root):
        where = request.root / _FOLDER
        batches = {name: _read(where / name) for name in _TRAIN + _TEST}
    else:
        where = archive
        batches = _read_archive(archive, request)
    md5 = dict(CIFAR10.train_list + CIFAR10.test_list)
    pairs = {
        name: _decode(data, md5[name], where / name, request) for name, data in batches.items()
    }
    train, test = (
        tuple(torch.cat(column) for column in zip(*(pairs[name] for name in names), strict=True))
        for names in (_TRAIN, _TEST)
    )
    return assemble(request, Samples((train[0], train[1]), (test[0], test[1]), None, _CLASSES))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}.") from None


def _read_archive(path: Path, request: Request) -> dict[str, bytes]:
    # Read where it lies: nothing is unpacked, so the root may be read-only and no name in the
    # archive can lead anywhere.
    wanted = {f"{_FOLDER}/{name}": name for name in _TRAIN + _TEST}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name in wanted and (file := archive.extractfile(member)):
                    found[wanted[member.name]] = file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _damaged(path, reason(error), request) from None
    if absent := [name for name in wanted.values() if name not in found]:
        raise _damaged(path, f"it lacks {', '.join(absent)}", request)
    return found


def _decode(data: bytes, md5: str, path: Path, request: Request) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (m, 3, 32, 32) and labels int64 (m,) of one batch file."""
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise _damaged(path, f"its MD5 is not {md5}", request)
    # A pickle runs what it names, so only the published bytes are unpickled: these very bytes, in
    # memory, were just compared with the MD5 that torchvision carries. Finding other bytes with a
    # given MD5 (a second preimage, not a collision) is out of anybody's reach.
    batch = pickle.load(io.BytesIO(data), encoding="latin1")
    x = np.array(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)  # already channels first
    return torch.from_numpy(x), torch.tensor(batch["labels"], dtype=torch.int64)


def _damaged(path: Path, what: str, request: Request) -> DatasetError:
    return DatasetError(
        f"{path} is damaged: {what}; move it away and get it again{request.other_data}."
    )


CIFAR10 = Source(
    help="60,000 colour photographs, 32x32 RGB, 10 classes; downloads 170 MB once",
    load=_load,
    is_ready=_is_ready,
    kind="pictures",
)
