"""The run directory: a folder that one process at a time writes to, each file atomically.

config.yaml      the resolved configuration
overrides.yaml   what was typed
data.json        what the data were: digest, classes, what was done to them
tokenizer.json   of a language model: its vocabulary
metrics.jsonl    metrics, a JSON object a line
teacher/         checkpoints of the network that a run of idl sim trained to learn from
checkpoints/     best and last
figures/
summary.json     written last, atomically, whatever happened
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from idl_cli.atomic_write import write_whole
from idl_cli.errors import InputError
from idl_cli.typed_words import typed_word

try:
    import fcntl
except ImportError:  # not on Windows: there a run is not locked
    fcntl = None  # type: ignore[assignment]

TRAINED = ("teacher", "checkpoints")
CONTENTS = (
    "config.yaml",
    "overrides.yaml",
    "data.json",
    "tokenizer.json",
    "metrics.jsonl",
    *TRAINED,
    "figures",
    "summary.json",
)


class RunDirectory:
    """One run directory, held by this process until `release`."""

    def __init__(self, path: Path) -> None:
        """Lock an existing folder; see `claim` and `reopen`. Raises: InputError."""
        self.path = path
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.yaml"
        self.metrics = path / "metrics.jsonl"
        self.teacher, self.checkpoints = (path / name for name in TRAINED)
        self.figures = path / "figures"
        self.summary = path / "summary.json"
        self._lock = _lock(path)

    @classmethod
    def claim(cls, path: Path, *, may_rename: bool) -> RunDirectory:
        """Make a new run directory, which no other process can get too.

        Args:
            may_rename: take `<path>_2`, `<path>_3`... where `path` is taken; false for a path that
                the user chose: there it is an error.

        Raises: InputError where `path` holds a run already or cannot be written.
        """
        for number in itertools.count(1):
            candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
            try:
                if holds_run(candidate):
                    raise FileExistsError
                # Making a folder succeeds for one process only: that one has the directory.
                (candidate / "figures").mkdir(parents=True)
                return cls(candidate)
            except FileExistsError:
                if may_rename:
                    continue
                if not candidate.is_dir():
                    raise InputError(f"'{candidate}' is a file; a run needs a folder") from None
                raise InputError(
                    f"'{candidate}' holds a run already; choose another hydra.run.dir, or go on "
                    f"with it: {typed_word('trainer.resume', candidate)}"
                ) from None
            except OSError as error:
                raise cannot_write(candidate, error) from error
        raise AssertionError("unreachable")

    @classmethod
    def reopen(cls, path: Path) -> RunDirectory:
        """Lock an earlier run directory to go on in it. Raises: InputError where it is in use."""
        try:
            (path / "figures").mkdir(exist_ok=True)
            return cls(path)
        except OSError as error:
            raise cannot_write(path, error) from error

    @property
    def shown(self) -> str:
        """The path as a user would type it: relative where it is below the current folder."""
        with contextlib.suppress(ValueError):
            return str(self.path.absolute().relative_to(Path.cwd()))
        return str(self.path)

    def write_settings(self, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
        """Write config.yaml and overrides.yaml. Raises: InputError where they cannot be written."""
        words, values = own_words(overrides), dict(config)
        try:
            write_whole(self.overrides, yaml.safe_dump(words, allow_unicode=True))
            write_whole(self.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; a NaN or infinity, which JSON lacks, becomes null."""
        write_whole(self.summary, json.dumps(finite(summary), indent=2) + "\n")

    def discard(self) -> None:
        """Release the directory, and remove it where it is still empty."""
        self.overrides.unlink(missing_ok=True)
        for folder in (self.figures, self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self.release()

    def release(self) -> None:
        """Release the directory for other processes; its files stay."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def holds_run(path: Path) -> bool:
    """Whether anything of a run is in a folder."""
    return any((path / name).exists() for name in CONTENTS)


def own_words(typed: Sequence[str]) -> list[str]:
    """What was typed, without trainer.resume and sweep.resume."""
    return [word for word in typed if word.split("=")[0] not in ("trainer.resume", "sweep.resume")]


def finite(value: Any) -> Any:
    """The value with every NaN and infinity in it replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def cannot_write(path: Path, error: OSError, key: str = "hydra.run.dir") -> InputError:
    """The error about a folder that cannot be written; `key` names another."""
    reason = error.strerror or str(error)
    return InputError(
        f"cannot write the run directory '{path}' ({reason}); choose another with {key}="
    )


def _lock(path: Path) -> int | None:
    """An advisory lock on the folder itself, which the system drops when the process ends."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"another process is working in '{path}'") from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor
