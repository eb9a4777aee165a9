"""The checkpoints of a run: opening their folder, reading one, loading it into a model.

How they are written, atomically and in safetensors, is `idl_core.training.CheckpointFolder`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import nn

from idl_cli.config.model_options import ModelConfig
from idl_cli.errors import InputError
from idl_cli.record.fingerprint import fingerprint
from idl_cli.record.normalisation import kept_normalisation
from idl_core.training import Checkpoint, CheckpointError, CheckpointFolder, load_weights
from idl_datasets import Dataset


def checkpoint_folder(path: Path, model: ModelConfig, dataset: Dataset) -> CheckpointFolder:
    """The checkpoint folder of a model that is trained on a data set."""
    return CheckpointFolder(path, fingerprint(model, dataset), kept_normalisation(dataset))


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def chosen_checkpoint(
    folder: Path, checkpoint: Literal["best", "last"], say: Callable[[str], None] = _warn
) -> Checkpoint:
    """Read the best or the last checkpoint of a folder.

    Args:
        say: takes a warning where `last` is damaged and the one before it is read instead.

    Raises: InputError where it is absent or damaged.
    """
    checkpoints = CheckpointFolder(folder)
    try:
        if checkpoint == "best":
            return checkpoints.load_best()
        last, problems = checkpoints.load_last()
    except CheckpointError as error:
        raise InputError(str(error)) from error
    if last is None:
        raise InputError(f"no checkpoint in '{folder}'")
    if problems:
        say(f"warning: {problems[0]}; the one before it is taken, of step {last.step}")
    return last


def resumed_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint that a training goes on from, if it has saved one. Raises: InputError."""
    try:
        return CheckpointFolder(folder).load_last()[0]
    except CheckpointError as error:
        raise InputError(str(error)) from error


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint, run: Path) -> None:
    """Put the weights of a run's checkpoint into a model. Raises: InputError."""
    try:
        load_weights(model, checkpoint.tensors)
    except CheckpointError as error:
        raise InputError(f"'{run}': {error}") from error
