"""Checkpoints that are whole or absent, say when they are damaged, and run no code.

One checkpoint is one safetensors file: tensors by name, and in its metadata the rest of the state
as JSON with a format version and a checksum over both. It is written beside its final name, synced,
and renamed, so that a crash at any moment leaves the file before or the file after.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

FORMAT = 1

Tensors = dict[str, Tensor]


class CheckpointError(Exception):
    """A checkpoint is missing, damaged, of another format or another model: one line says which."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: tensors on the CPU, and a JSON-like state."""

    tensors: Tensors
    state: dict[str, Any]

    @property
    def step(self) -> int | None:
        """The step that it was made at; None where it does not say."""
        progress = self.state.get("progress")
        return progress.get("step") if isinstance(progress, dict) else None


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write one checkpoint atomically: `path` holds the old file or the whole new one, never less.

    Raises: OSError where it cannot be written (disk full, read-only); `path` is then untouched.
    """
    stored = _storable(tensors)
    text = json.dumps(state, sort_keys=True)
    metadata = {"format": str(FORMAT), "state": text, "checksum": _checksum(stored, text)}
    scratch = path.with_name(f".{path.name}.part")
    try:
        with open(scratch, "wb") as file:
            file.write(save(stored, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    _sync_folder(path.parent)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; runs no code from it.

    Raises: CheckpointError, one line, where it is missing, damaged, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at '{path}'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: {_one_line(error)}") from error
    if "checksum" not in metadata or "state" not in metadata:
        raise CheckpointError(f"'{path}' is no checkpoint of idl: it carries no training state")
    if metadata.get("format") != str(FORMAT):
        raise CheckpointError(
            f"checkpoint '{path}' has format {metadata.get('format')!r}; "
            f"this version of idl reads format {FORMAT}"
        )
    if _checksum(tensors, metadata["state"]) != metadata["checksum"]:
        raise CheckpointError(f"checkpoint '{path}' is damaged: its checksum does not match")
    try:
        state = dict(json.loads(metadata["state"]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: its state is no JSON") from error
    return Checkpoint(tensors, state)


class CheckpointFolder:
    """The checkpoints of one run: `best` and `last`, and the ones before them.

    `fingerprint` names what the checkpoints belong to (a digest of the configuration of the model,
    say); a checkpoint with another one is refused. `constants` are tensors that every checkpoint
    of the folder holds beside those that change, such as how the model's inputs are normalised.

    `last` knows which `best` it goes with (`best_step`). A crash between writing the two must not
    leave a `best` that is ahead of `last`, or training on from `last` would compare itself with its
    own future: a new best waits as `pending` until its `last` is on disk, and the best before it
    stays, for the `last` before.
    """

    def __init__(
        self, folder: Path, fingerprint: str = "", constants: Mapping[str, Tensor] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.fingerprint = fingerprint
        self.constants = dict(constants or {})
        self.best = self.folder / "best.safetensors"
        self.last = self.folder / "last.safetensors"
        self.previous = self.folder / "previous.safetensors"
        self._newest = self.folder / "newest.safetensors"
        self._pending = self.folder / "pending.safetensors"
        self._best_before = self.folder / "best_before.safetensors"

    def save(self, last: Checkpoint, best: Checkpoint | None) -> None:
        """Replace `last`, keeping the one before it, and `best` where a new one is given.

        Raises: OSError where they cannot be written; everything before is then still there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if best is not None:
            self._write(self._pending, best)
        self._write(self._newest, last)
        if self.last.exists():
            os.replace(self.last, self.previous)
        os.replace(self._newest, self.last)
        if best is not None:
            self._install_best()
        _sync_folder(self.folder)

    def save_best(self, best: Checkpoint) -> None:
        """Replace `best` alone. Raises: OSError, with the old one still there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self._pending, best)
        self._install_best()
        _sync_folder(self.folder)

    def _install_best(self) -> None:
        if self.best.exists():
            os.replace(self.best, self._best_before)
        os.replace(self._pending, self.best)

    def load_last(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint (None: none was written), and a line for each passed over.

        Raises: CheckpointError where there are files but no whole one.
        """
        problems: list[str] = []
        # A crash while saving leaves the names in this order of age.
        last = self._first_whole((self._newest, self.last, self.previous), problems)
        if last is None and problems:
            raise CheckpointError(problems[0])
        return last, problems

    def load(self) -> tuple[Checkpoint | None, Checkpoint | None, list[str]]:
        """The newest whole checkpoint and the best one that goes with it.

        Returns: (last, best, problems); None where none was written, or for `best` where it is
            damaged; a line in `problems` for every file passed over.
        Raises: CheckpointError where there are files but no whole `last`.
        """
        last, problems = self.load_last()
        best_step = None if last is None else last.state.get("best_step")
        if best_step is None:
            return last, None, problems
        best = None
        for path in (self._pending, self.best, self._best_before):
            found = self._first_whole((path,), problems)
            if found is None or found.step is None or found.step > best_step:
                continue  # a later one would be the future of what is gone on with
            if best is None or best.step != best_step:
                best = found
        if best is None:
            problems.append(
                f"no best checkpoint in '{self.folder}': the next evaluation is the best"
            )
        return last, best, problems

    def load_best(self) -> Checkpoint:
        """The checkpoint of the best evaluation, or `last` where nothing was evaluated.

        Raises: CheckpointError.
        """
        if self._pending.exists() or not self.best.exists():
            last, best, _ = self.load()
            if found := best or last:
                return found
        return self._read(self.best)

    def _first_whole(self, paths: Iterable[Path], problems: list[str]) -> Checkpoint | None:
        for path in paths:
            if path.exists():
                try:
                    return self._read(path)
                except CheckpointError as error:
                    problems.append(str(error))
        return None

    def _read(self, path: Path) -> Checkpoint:
        checkpoint = read_checkpoint(path)
        found = checkpoint.state.get("fingerprint", "")
        if self.fingerprint and found != self.fingerprint:
            raise CheckpointError(f"checkpoint '{path}' belongs to another model or configuration")
        return checkpoint

    def _write(self, path: Path, checkpoint: Checkpoint) -> None:
        state = {**checkpoint.state, "fingerprint": self.fingerprint}
        write_checkpoint(path, checkpoint.tensors | self.constants, state)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "model.") -> None:
    """Copy the tensors under `prefix` into the model; names and shapes must be the same.

    Raises: CheckpointError naming the first tensor that is missing, left over or of another shape.
    """
    wanted = model.state_dict()
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(f"checkpoint of another model: it has no '{name}'")
        if name not in wanted:
            raise CheckpointError(f"checkpoint of another model: '{name}' is not in this one")
        if wanted[name].shape != found[name].shape:
            raise CheckpointError(
                f"checkpoint of another model: '{name}' is {tuple(found[name].shape)} in it "
                f"and {tuple(wanted[name].shape)} here"
            )
    model.load_state_dict(found)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """The optimizer's state as tensors by name and a JSON-like rest."""
    tensors: Tensors = {}
    rest: dict[str, Any] = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value
            elif value is not None:
                rest[f"{number}.{key}"] = value
    return tensors, rest


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Put back what `optimizer_tensors` gave; hyperparameters stay those of `optimizer`.

    Raises: CheckpointError where the state does not fit the optimizer's parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in _optimizer_items(tensors, rest):
        number, _, key = name.partition(".")
        if not number.isdigit() or int(number) >= len(parameters):
            raise CheckpointError(f"checkpoint of another optimizer: no parameter {number}")
        shape = parameters[int(number)].shape
        if isinstance(value, Tensor) and value.dim() and value.shape != shape:
            raise CheckpointError(f"checkpoint of another optimizer: shape of '{name}'")
        # Cloned: a tensor as read may still be the file's memory.
        state.setdefault(int(number), {})[key] = (
            value.clone() if isinstance(value, Tensor) else value
        )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _optimizer_items(
    tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            yield name.removeprefix("optimizer."), tensor
    yield from rest.items()


def _storable(tensors: Mapping[str, Tensor]) -> Tensors:
    # safetensors refuses tensors that share memory (tied weights): those are stored twice.
    stored: Tensors = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if address in seen else plain
        seen.add(address)
    return stored


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself survive a power cut. Some systems cannot open a folder: no matter.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
