"""Where pictures lie: `train/<class>/*`, `test/<class>/*` and, perhaps, `val/<class>/*`."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DatasetError, shortlist
from .store import PictureStore

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_VALIDATION = ("val", "valid", "validation")


@dataclass
class Layout:
    """The pictures of each split, and what else lies among them.

    files: split -> class -> names of files, classes and files in alphabetical order
    left_out: files that are no pictures, or of a format that is not read
    """

    files: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def classes(self) -> tuple[str, ...]:
        """Every class that has a picture, those of train first."""
        seen = dict.fromkeys(name for split in self.files.values() for name in split)
        return tuple(seen)

    def of(self, split: str) -> list[str]:
        """The files of a split."""
        return [file for files in self.files[split].values() for file in files]

    def notes(self) -> list[str]:
        """What is said of the files that were left out."""
        if not self.left_out:
            return []
        kinds = Counter(_suffix(file) for file in self.left_out)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
        return [
            f"files left out, being no pictures that are read here: {len(self.left_out):,} "
            f"({counts}), {self.left_out[0]} first"
        ]


def layout(store: PictureStore, path: Path) -> Layout:
    """The pictures in `store`. Raises DatasetError where they are not laid out as expected."""
    top, splits = _splits(store, path)
    found = Layout()
    for split, folder in splits.items():
        found.files[split] = _files_by_class(store, path, top, folder, found.left_out)
    for split, folder in splits.items():
        if split != "train" and not any(found.files[split].values()):
            raise DatasetError(
                f"{path}: {top}{folder}/ has no pictures ({', '.join(SUFFIXES)})"
                f"{_others(found.left_out, top + folder)}: add some."
            )
    return found


def check_classes(path: Path, found: Layout) -> None:
    """Raise DatasetError where a class is in test or val but not in train."""
    train = found.files["train"]
    for split, files in found.files.items():
        for name in files:
            if name not in train:
                raise DatasetError(
                    f"{path}: class '{name}' is in {split}/ but not in train/ "
                    f"({shortlist(list(train))}): add pictures of it to train/, or remove it from "
                    f"{split}/."
                )


def _splits(store: PictureStore, path: Path) -> tuple[str, dict[str, str]]:
    """The folder that has the splits ('' or ending in '/'), and the folder of each split.

    It is the top, or where there is a single folder on the way to it, the innermost of those.
    """
    top = ""
    folders, _ = store.children(top)
    while len(folders) == 1 and folders[0] not in ("train", "test"):
        top += f"{folders[0]}/"
        folders, _ = store.children(top.rstrip("/"))
    if not {"train", "test"} & set(folders):
        top = ""  # nothing was found on the way: the error is about what the user sees
        folders, _ = store.children(top)
    for split in ("train", "test"):
        if split not in folders:
            raise DatasetError(
                f"{path / top} has no folder {split}/ (it has: {shortlist(folders)}): expected "
                "train/<class>/* and test/<class>/*."
            )
    splits = {"train": "train", "test": "test"}
    validation = [name for name in _VALIDATION if name in folders]
    if len(validation) > 1:
        raise DatasetError(
            f"{path / top} has {validation[0]}/ and {validation[1]}/: keep one folder of "
            "validation pictures."
        )
    return top, splits | ({"val": validation[0]} if validation else {})


def _files_by_class(
    store: PictureStore, path: Path, top: str, split: str, left_out: list[str]
) -> dict[str, list[str]]:
    """The pictures of each class of a split; in train every class must have some."""
    folder = f"{top}{split}"
    names, loose = store.children(folder)
    left_out += [f"{folder}/{file}" for file in loose]
    if stray := [file for file in loose if is_picture(file)]:
        raise DatasetError(
            f"{path}: {folder}/{stray[0]} lies in no class folder: expected {split}/<class>/*."
        )
    if not names:
        raise DatasetError(f"{path}: {folder}/ has no class folders: expected {split}/<class>/*.")
    found: dict[str, list[str]] = {}
    for name in names:
        folders, files = store.children(f"{folder}/{name}")
        if folders:
            # Left out silently, these pictures would be missed by nobody.
            raise DatasetError(
                f"{path}: {folder}/{name} has a folder '{folders[0]}' in it, where pictures are "
                f"expected: {split}/<class>/*."
            )
        left_out += [f"{folder}/{name}/{file}" for file in files if not is_picture(file)]
        pictures = [f"{folder}/{name}/{file}" for file in files if is_picture(file)]
        if pictures:
            # The same letters may be composed (Windows, Linux) or not (names from macOS).
            found.setdefault(unicodedata.normalize("NFC", name), []).extend(pictures)
        elif split == "train":
            raise DatasetError(
                f"{path}: {folder}/{name} has no pictures ({', '.join(SUFFIXES)})"
                f"{_others(left_out, f'{folder}/{name}')}: add some, or remove the folder."
            )
    return found


def is_picture(file: str) -> bool:
    """Whether a file has the name of a picture that is read here."""
    return file.lower().endswith(SUFFIXES)


def _others(left_out: list[str], folder: str) -> str:
    """` but 3 .heic`: what lies in `folder` instead of pictures."""
    kinds = Counter(_suffix(file) for file in left_out if file.startswith(f"{folder}/"))
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(3))
    hint = " (convert them to .jpg or .png)" if {".heic", ".heif"} & set(kinds) else ""
    return f" but {counts}{hint}" if kinds else ""


def _suffix(file: str) -> str:
    name = file.rpartition("/")[2]
    return "." + name.rpartition(".")[2].lower() if "." in name else "without a suffix"
