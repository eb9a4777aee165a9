"""`idl sim`: learn an implicit model from the states of a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from omegaconf import DictConfig

from idl_cli.config.sim_config import SimConfig, TeacherConfig, sim_config
from idl_cli.config.typed_settings import known_keys, names_of
from idl_cli.hydra_app.hydra_job import run_hydra_job
from idl_cli.hydra_app.run_command import run_hydra_command


def main(arguments: Sequence[str]) -> int:
    """Run `idl sim`. Raises: InputError, RunFailed."""
    known = {**known_keys(SimConfig), "experiment": []}
    words = [word for typed in arguments for word in _spelled_out(typed)]
    return run_hydra_command(learn, "sim", words, known, sim_config)


def learn(config: DictConfig) -> float | None:
    """One job, as Hydra's launchers call it.

    Returns: as of `idl train`, of the implicit model.
    """
    from idl_cli.jobs.job import run_job
    from idl_cli.jobs.sim import compute

    return run_hydra_job(config, partial(run_job, "sim", compute))


def _spelled_out(word: str) -> list[str]:
    """`teacher=<run directory>` as `teacher=run teacher.run=<run directory>`.

    Hydra would take the directory for a choice of the group teacher.
    """
    key, _, value = word.partition("=")
    choices = {name for option in get_args(TeacherConfig) for name in names_of(option)}
    is_path = "/" in value or Path(value).is_dir()
    if key != "teacher" or not is_path or choices.intersection(value.split(",")):
        return [word]
    if not value.startswith(("'", '"')) and any(c in value for c in "=()[]{}:"):
        value = "'" + value.replace("'", "\\'") + "'"
    return ["teacher=run", f"teacher.run={value}"]
