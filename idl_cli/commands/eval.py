"""`idl eval run=<dir>`: evaluate a run's checkpoint, on its own data or on others of that shape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig

from idl_cli.config.eval_config import EvalConfig
from idl_cli.config.typed_settings import known_keys, read_settings
from idl_cli.hydra_app.hydra_job import run_hydra_job
from idl_cli.hydra_app.run_command import run_hydra_command
from idl_cli.record.config_file import recorded_config
from idl_cli.record.finder import existing_run


def main(arguments: Sequence[str]) -> int:
    """Run `idl eval`. Raises: InputError."""
    known = known_keys(EvalConfig)
    return run_hydra_command(evaluate_run, "eval", arguments, known, check)


def check(values: dict[str, Any]) -> None:
    """Raise InputError where the configuration is wrong or names no run."""
    config = read_settings(EvalConfig, values)
    recorded_config(existing_run(config.run))


def evaluate_run(config: DictConfig) -> float | None:
    """One job, as Hydra's launchers call it. Returns: the split's loss, None where it failed."""
    from idl_cli.jobs.eval import compute
    from idl_cli.jobs.job import run_job

    return run_hydra_job(config, partial(run_job, "eval", compute))
