"""The model that `idl sim` learned, as a checkpoint of an implicit model."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

from idl_cli.config import build
from idl_cli.config.schema import ImplicitConfig
from idl_cli.config.sim_options import SimConfig
from idl_cli.errors import RunFailed
from idl_cli.jobs.job import Job
from idl_cli.jobs.teacher import Teacher
from idl_cli.jobs.training.components import checkpoint_folder
from idl_cli.record.run_directory import RunDirectory
from idl_core.sim import SIM
from idl_core.training import Checkpoint, Progress

# Rows of A sit on the bound κ, where Picard iteration needs as many maps as this to converge.
_MITR = 5000


def save_model(
    job: Job, config: SimConfig, teacher: Teacher, sim: SIM, directory: RunDirectory
) -> int | None:
    """The model as a checkpoint that `idl eval` reads. Returns its number of states; None: none."""
    try:
        model = sim.to_implicit_model()
    except ValueError as error:
        job.screen.say(f"no checkpoint: {error}")
        shutil.rmtree(directory.checkpoints, ignore_errors=True)  # of an earlier solve of this run
        return None
    state = model.state_dict()
    described = ImplicitConfig(
        hidden_dim=len(state["A"]),
        activation=teacher.config.activation,
        kappa=config.model.kappa,
        mitr=_MITR,
        grad_mitr=_MITR,
        tol=config.model.atol,
    )
    dataset = teacher.parts.dataset
    build.build_model(described, dataset).load_state_dict(state)  # raises where ours would not load
    facts: dict[str, Any] = {
        "progress": dataclasses.asdict(Progress()),
        "best_step": 0,
        "figures": {},
    }
    tensors = {f"model.{name}": tensor for name, tensor in state.items()}
    checkpoint = Checkpoint(tensors, facts)
    try:
        checkpoint_folder(directory.checkpoints, described, dataset).save(checkpoint, checkpoint)
    except OSError as error:
        raise RunFailed(f"the model could not be written: {error.strerror}") from error
    return described.hidden_dim
