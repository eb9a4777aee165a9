"""MNIST and Fashion-MNIST: four IDX files each, in the places where torchvision keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..assembly import Samples, assemble
from ..dataset import Dataset
from ..download import RemoteFile, obtain
from ..errors import DatasetError
from ..source import Request, Source
from .idx import read_idx

_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class _IdxPictures:
    """One of the data sets that come as four IDX files.

    Read here and not by torchvision, which unpacks the .gz beside itself (the folder may be
    read-only) and believes what the files say. Checksums are for what is downloaded; what lies in
    the folder may have been packed again, and is checked for being whole and consistent.
    """

    torchvision_name: str  # also the folder's name
    class_names: tuple[str, ...]

    def folder(self, root: Path) -> Path:
        return root / self.torchvision_name / "raw"

    def is_ready(self, root: Path) -> bool:
        return not self.absent(self.folder(root))

    def absent(self, folder: Path) -> list[str]:
        return [stem for stem in _TRAIN + _TEST if _find(folder, stem) is None]

    def remote(self, stems: Sequence[str]) -> list[RemoteFile]:
        import torchvision.datasets  # takes a second: only where something is absent

        known = getattr(torchvision.datasets, self.torchvision_name)
        md5 = dict(known.resources)
        names = [f"{stem}.gz" for stem in stems]
        return [
            RemoteFile(name, [f"{mirror}{name}" for mirror in known.mirrors], md5[name])
            for name in names
        ]

    def load(self, request: Request) -> Dataset:
        folder = self.folder(request.root)
        if absent := self.absent(folder):
            obtain(request, folder, self.remote(absent))
        train, test = self.read(folder, _TRAIN), self.read(folder, _TEST)
        if train[0].shape[1:] != test[0].shape[1:]:
            raise DatasetError(
                f"{folder}: train pictures are {tuple(train[0].shape[2:])} and test pictures "
                f"{tuple(test[0].shape[2:])}: these files do not belong together; get them again."
            )
        return assemble(request, Samples(train, test, class_names=self.class_names))

    def read(self, folder: Path, stems: tuple[str, str]) -> tuple[Tensor, Tensor]:
        images_path, labels_path = (_find(folder, stem) or folder / stem for stem in stems)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DatasetError(
                f"{images_path} has {len(images):,} pictures but {labels_path.name} "
                f"{len(labels):,} labels: they do not belong together; get both again."
            )
        if images.size == 0:
            raise DatasetError(f"{images_path} has no pictures: move it away and get it again.")
        if labels.max() >= len(self.class_names):
            row = int((labels >= len(self.class_names)).argmax())
            raise DatasetError(
                f"{labels_path} is damaged: label {labels[row]} at row {row}, where labels are "
                f"0..{len(self.class_names) - 1}: move it away and get it again."
            )
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).to(torch.int64)


def _find(folder: Path, stem: str) -> Path | None:
    candidates = (folder / stem, folder / f"{stem}.gz")  # unpacked first: faster to read
    return next((path for path in candidates if path.is_file()), None)


_MNIST = _IdxPictures("MNIST", tuple(str(digit) for digit in range(10)))
_FASHION_MNIST = _IdxPictures(
    "FashionMNIST",
    (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
)  # fmt: skip

MNIST = Source(
    help="70,000 handwritten digits, 28x28 gray, 10 classes; downloads 11 MB once",
    load=_MNIST.load,
    is_ready=_MNIST.is_ready,
    kind="pictures",
)
FASHION_MNIST = Source(
    help="70,000 pictures of clothes, 28x28 gray, 10 classes; downloads 30 MB once",
    load=_FASHION_MNIST.load,
    is_ready=_FASHION_MNIST.is_ready,
    kind="pictures",
)
