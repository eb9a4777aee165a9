"""Getting absent files from the net: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DatasetError, reason
from .source import Progress, Request

TIMEOUT_S = 15.0
"""How long a server may stay silent before it is given up."""

_PIECE = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded: where from (tried in turn) and its MD5."""

    filename: str
    urls: Sequence[str]
    md5: str


def obtain(request: Request, folder: Path, files: Sequence[RemoteFile]) -> None:
    """Download `files`, which are absent, into `folder`.

    Raises DatasetError, where that is switched off or fails, saying how to do it by hand.
    """
    for position, file in enumerate(files):
        if not request.download:
            raise _do_it_by_hand(request, folder, files, "downloading is off")
        try:
            _fetch_from_any(file, folder, request.progress)
        except OSError as error:
            raise _do_it_by_hand(request, folder, files[position:], reason(error)) from None


def _do_it_by_hand(
    request: Request, folder: Path, files: Sequence[RemoteFile], why: str
) -> DatasetError:
    names = ", ".join(file.filename for file in files)
    source = files[0].urls[0].rpartition("/")[0] + "/"
    return DatasetError(
        f"{request.name}: {folder} lacks {names} ({why}): download from {source} into that folder"
        f"{request.other_data}."
    )


def _fetch_from_any(file: RemoteFile, folder: Path, progress: Progress) -> None:
    failures = []
    for url in file.urls:
        try:
            return fetch(url, folder / file.filename, file.md5, progress)
        except (OSError, http.client.HTTPException) as error:
            # A bare URLError only wraps the cause; an HTTPError has the status in its own text.
            cause = error.reason if type(error) is urllib.error.URLError else error
            host = urllib.parse.urlsplit(url).hostname
            failures.append(f"{host}: {reason(cause) if isinstance(cause, Exception) else cause}")
    raise OSError("; ".join(failures))


def fetch(url: str, target: Path, md5: str, progress: Progress) -> None:
    """Download `url` to `target`, which appears only once it is complete and its MD5 right.

    Raises OSError or http.client.HTTPException.
    """
    # torchvision's own download writes to the final name, waits for a silent server for ever and
    # draws a bar of its own; its addresses and checksums are what is worth taking from it.
    # The name has the process in it: several may fetch the same file at once, and the last wins.
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "idl"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            # Only now: where there is no net, no empty folder is left behind.
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                total, done = response.length, 0
                while piece := response.read(_PIECE):
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    progress(f"downloading {target.name}", done, total)
        if digest.hexdigest() != md5:
            raise OSError(f"what was sent has MD5 {digest.hexdigest()}, not {md5}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
