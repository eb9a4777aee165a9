"""The model that a run has trained, made again without its data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import torch
from torch import nn

from idl_cli.config.build import build_model
from idl_cli.errors import InputError
from idl_cli.record.config_file import belongings, model_of, read_recorded
from idl_core.training import Checkpoint, CheckpointError, CheckpointFolder, load_weights
from idl_datasets import Dataset


def trained_model(run: Path, checkpoint: Literal["best", "last"] = "best") -> nn.Module:
    """The model with the weights of a checkpoint, on the CPU.

    Raises: InputError where the configuration or the checkpoint is absent or damaged.
    """
    config = read_recorded(run)
    saved = read_trained(run / "checkpoints", checkpoint)
    # The sizes of the data are in the checkpoint: the data itself need not be here.
    sizes = belongings(saved)
    data = SimpleNamespace(
        name=config.data.name, input_shape=sizes["input_shape"], output_dim=sizes["output_dim"]
    )
    model = build_model(model_of(config, saved), cast(Dataset, data))
    if config.trainer.precision == "64":
        model = model.to(torch.float64)
    load_trained(model, saved, run)
    return model


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def read_trained(
    folder: Path, checkpoint: Literal["best", "last"], say: Callable[[str], None] = _warn
) -> Checkpoint:
    """The checkpoint in a folder that was asked for.

    Args:
        say: told what was passed over, where `last` is damaged and the one before it is taken.

    Raises: InputError: absent or damaged.
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
    """The one that a training goes on from, if it has saved one. Raises: InputError: damaged."""
    try:
        return CheckpointFolder(folder).load_last()[0]
    except CheckpointError as error:
        raise InputError(str(error)) from error


def load_trained(model: nn.Module, checkpoint: Checkpoint, run: Path) -> None:
    """Put the weights of a run's checkpoint into a model. Raises: InputError: of another model."""
    try:
        load_weights(model, checkpoint.tensors)
    except CheckpointError as error:
        raise InputError(f"'{run}': {error}") from error
