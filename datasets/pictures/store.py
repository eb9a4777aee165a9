"""A tree of picture files to read from: a folder, or a zip read where it lies."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Protocol

from ..errors import DatasetError, reason


class PictureStore(Protocol):
    """A tree of files, in a folder or an archive; its names are joined by '/', '' is its top."""

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files in `folder`, sorted, hidden ones left out."""

    def read(self, file: str) -> bytes:
        """The bytes of `file`; may be called from several threads."""


class FolderStore:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(self._path / folder) as entries:
                for entry in entries:
                    if not _is_hidden(entry.name):
                        (folders if entry.is_dir() else files).append(entry.name)
        except OSError as error:
            raise DatasetError(f"{self._path / folder} cannot be read: {reason(error)}.") from None
        return sorted(folders), sorted(files)

    def read(self, file: str) -> bytes:
        return (self._path / file).read_bytes()


class ZipStore:
    """A zip. Nothing is unpacked to disk, so that no name in it can lead out of a folder.

    Names may be joined by backslashes, as some programs on Windows write them.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise DatasetError(
                f"{path} is not a folder and cannot be read as a .zip ({reason(error)}): "
                "make or download it again."
            ) from None
        self._tree: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            self._add(member)

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = member.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part]
        if not parts or any(map(_is_hidden, parts)):
            return
        parent = ""
        for part in parts if name.endswith("/") else parts[:-1]:
            self._tree[parent][0].add(part)
            parent = f"{parent}/{part}" if parent else part
            self._tree.setdefault(parent, (set(), set()))
        if not name.endswith("/"):
            self._tree[parent][1].add(parts[-1])
            self._members["/".join(parts)] = member

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        folders, files = self._tree[folder]
        return sorted(folders), sorted(files)

    def read(self, file: str) -> bytes:
        return self._zip.read(self._members[file])


def _is_hidden(name: str) -> bool:
    """Whether it is what desktops leave behind: .DS_Store, ._0001.jpg, __MACOSX, Thumbs.db."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def open_store(path: Path) -> PictureStore:
    """The folder or zip at `path`; DatasetError where it is neither."""
    if path.is_dir():
        return FolderStore(path)
    if not path.exists():
        raise DatasetError(
            f"{path} does not exist: set data.path to a folder or .zip that has "
            "train/<class>/* and test/<class>/*."
        )
    return ZipStore(path)
