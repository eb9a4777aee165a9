"""The model that `idl sim` learned, saved as a checkpoint of an implicit model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from idl_cli.config.build_model import build_model
from idl_cli.config.model_options import Activation, ImplicitConfig
from idl_cli.config.sim_config import SIMConfig
from idl_cli.errors import RunFailed
from idl_cli.record.checkpoints import checkpoint_folder
from idl_core.sim import SIM
from idl_core.training import Checkpoint, Progress
from idl_datasets import Dataset

# Rows of A sit on the bound κ, where Picard iteration needs this many iterations to converge.
_MITR = 5000


def save_sim_model(
    folder: Path, sim: SIM, settings: SIMConfig, activation: Activation, dataset: Dataset
) -> int:
    """Write the checkpoint, which `idl eval` reads. Returns: the model's number of states.

    Args:
        activation: of the network that the states come from.

    Raises: ValueError where what was learned is no implicit model of ours; RunFailed where it
        cannot be written.
    """
    state = sim.to_implicit_model().state_dict()
    described = ImplicitConfig(
        hidden_dim=len(state["A"]),
        activation=activation,
        kappa=settings.kappa,
        mitr=_MITR,
        grad_mitr=_MITR,
        tol=settings.atol,
    )
    build_model(described, dataset).load_state_dict(state)  # raises where ours would not load
    facts: dict[str, Any] = {
        "progress": dataclasses.asdict(Progress()),
        "best_step": 0,
        "figures": {},
    }
    tensors = {f"model.{name}": tensor for name, tensor in state.items()}
    checkpoint = Checkpoint(tensors, facts)
    try:
        checkpoint_folder(folder, described, dataset).save(checkpoint, checkpoint)
    except OSError as error:
        raise RunFailed(f"the model could not be written: {error.strerror}") from error
    return described.hidden_dim
