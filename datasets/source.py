"""What a source of data is asked, and what it offers to the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .dataset import Dataset

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and of how much (None: not known)."""


def silent(what: str, done: int, total: int | None) -> None:
    """The `Progress` that shows nothing."""


@dataclass(frozen=True)
class Request:
    """The arguments of one `load`, checked; `options` are those of the source, for it to check.

    class_names: of the model that the data are for; None: the data have classes of their own
    alternatives: data sets of the same kind that need no file
    """

    name: str
    root: Path
    path: Path | None
    val_fraction: float
    seed: int
    download: bool
    progress: Progress = silent
    options: Mapping[str, object] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    alternatives: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """What an error is about: the user's file, else the data set as it was chosen."""
        return f"data={self.name}" if self.path is None else str(self.path)

    @property
    def other_data(self) -> str:
        """`, or use data=…, which needs no download`, where there is one of this kind."""
        if not self.alternatives:
            return ""
        return f", or use data={' or '.join(self.alternatives)}, which needs no download"


@dataclass(frozen=True)
class Source:
    """One entry of the registry.

    help: one line: size, where it comes from, whether it works offline
    load: reads, checks and divides the data; raises DatasetError
    is_ready: whether `load` would find everything under this root; cheap, opens no file
    kind: what its samples are, which decides the models that read them
    embedded: it needs no file of its own
    needs_path: the data are the user's own, named by `path`
    takes_path: `path` may be given, in place of the downloaded file
    options: names of what else `load` may be given
    """

    help: str
    load: Callable[[Request], Dataset]
    is_ready: Callable[[Path], bool]
    kind: Literal["pictures", "arrays", "series", "text"]
    embedded: bool = False
    needs_path: bool = False
    takes_path: bool = False
    options: tuple[str, ...] = ()
