"""`idl eval run=<dir>`: evaluate a run's checkpoint, on its own data or on others of that shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from idl_cli.config.schema import EvalConfig, known_keys
from idl_cli.config.typed_settings import read_settings
from idl_cli.hydra_app.hydra_command import run_hydra_command
from idl_cli.record.config_file import read_recorded
from idl_cli.record.finder import existing_run


def main(arguments: Sequence[str]) -> int:
    """Run `idl eval`. Raises: InputError."""
    known = known_keys(EvalConfig)
    return run_hydra_command(evaluate_run, "eval", arguments, known, check)


def check(values: dict[str, Any]) -> None:
    """Raise InputError where the configuration is wrong or names no run."""
    config = read_settings(EvalConfig, values)
    read_recorded(existing_run(config.run))


def evaluate_run(config: DictConfig) -> float | None:
    """One job, as Hydra's launchers call it. Returns: the split's loss, None where it failed."""
    from idl_cli.jobs.eval import compute
    from idl_cli.jobs.job import run_job

    return run_job("eval", config, compute)
