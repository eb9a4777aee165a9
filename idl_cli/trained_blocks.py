"""The matrices A, B, C, D that a run of the implicit model has learnt."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch

from idl_cli.build import build_model
from idl_cli.errors import InputError
from idl_cli.resume import read_config
from idl_core.models import ImplicitModel
from idl_core.training import CheckpointError, CheckpointFolder, load_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idl_datasets import Dataset


def trained_blocks(run: Path) -> dict[str, NDArray[Any]] | None:
    """A (n, n) as the equilibrium sees it, after its constraint, B (n, p), C (q, n), D (q, p).

    Of the best checkpoint; with a bias, B and D have one column more. None for a run of another
    model. Raises: InputError where the configuration or the checkpoint is damaged.
    """
    try:
        checkpoint = CheckpointFolder(run / "checkpoints").load_best()
        # The sizes of the data are in the checkpoint: the data itself need not be here.
        sizes = json.loads(checkpoint.state["fingerprint"])
        data = SimpleNamespace(
            input_shape=tuple(sizes["input_shape"]), output_dim=sizes["output_dim"]
        )
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint in '{run / 'checkpoints'}' does not say what data it is for"
        ) from error
    model = build_model(read_config(run).model, cast("Dataset", data))
    if not isinstance(model, ImplicitModel):
        return None
    try:
        load_weights(model, checkpoint.tensors)
    except CheckpointError as error:
        raise InputError(f"run={run}: {error}") from error
    with torch.no_grad():
        A, B, C = model.effective_A(), model.B, model.C
        D = model.D if model.D is not None else torch.zeros(len(C), B.shape[1])
        blocks = {"A": A, "B": B, "C": C, "D": D}
        return {name: block.double().numpy() for name, block in blocks.items()}
