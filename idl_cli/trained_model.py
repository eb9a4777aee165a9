"""The model that a run has trained, made again without its data."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import torch
from torch import nn

from idl_cli.build import build_model
from idl_cli.errors import InputError
from idl_cli.resume import read_config
from idl_core.training import Checkpoint, CheckpointError, CheckpointFolder, load_weights
from idl_datasets import Dataset


def trained_model(run: Path, checkpoint: Literal["best", "last"] = "best") -> nn.Module:
    """The model with the weights of a checkpoint, on the CPU.

    Raises: InputError where the configuration or the checkpoint is absent or damaged.
    """
    config = read_config(run)
    saved = read_trained(run, checkpoint)
    try:
        # The sizes of the data are in the checkpoint: the data itself need not be here.
        sizes = json.loads(saved.state["fingerprint"])
        data = SimpleNamespace(
            name=config.data.name,
            input_shape=tuple(sizes["input_shape"]),
            output_dim=sizes["output_dim"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint in '{run / 'checkpoints'}' does not say what data it is for"
        ) from error
    model = build_model(config.model, cast(Dataset, data))
    if config.trainer.precision == "64":
        model = model.to(torch.float64)
    try:
        load_weights(model, saved.tensors)
    except CheckpointError as error:
        raise InputError(f"run={run}: {error}") from error
    return model


def read_trained(run: Path, checkpoint: Literal["best", "last"]) -> Checkpoint:
    """The checkpoint that was asked for. Raises: InputError where it is absent or damaged."""
    folder = CheckpointFolder(run / "checkpoints")
    try:
        if checkpoint == "best":
            return folder.load_best()
        last, _, _ = folder.load()
    except CheckpointError as error:
        raise InputError(str(error)) from error
    if last is None:
        raise InputError(f"no checkpoint in '{folder.folder}'")
    return last
