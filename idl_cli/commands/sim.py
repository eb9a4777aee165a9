"""`idl sim`: learn an implicit model from the states of a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from omegaconf import DictConfig

from idl_cli.config.schema import known_keys
from idl_cli.config.sim_options import SimConfig, TeacherConfig, sim_config
from idl_cli.config.typed_settings import names_of
from idl_cli.hydra_app.hydra_command import run_hydra_command


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

    return run_job("sim", config, compute)


def _spelled_out(word: str) -> list[str]:
    """`teacher=<run directory>`, which Hydra takes for a choice of the group, in its own words."""
    key, _, value = word.partition("=")
    choices = {name for option in get_args(TeacherConfig) for name in names_of(option)}
    is_path = "/" in value or Path(value).is_dir()
    if key != "teacher" or not is_path or choices.intersection(value.split(",")):
        return [word]
    if not value.startswith(("'", '"')) and any(c in value for c in "=()[]{}:"):
        value = "'" + value.replace("'", "\\'") + "'"
    return ["teacher=run", f"teacher.run={value}"]
