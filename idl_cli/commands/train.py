"""`idl train`: train a model. Nothing heavy is imported until the configuration is known good."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from idl_cli.config.schema import TrainConfig, known_keys, train_config
from idl_cli.hydra_app.hydra_command import run_hydra_command


def main(arguments: Sequence[str]) -> int:
    """Run `idl train`. Raises: InputError, RunFailed."""
    known = {**known_keys(TrainConfig), "experiment": []}
    return run_hydra_command(train, "train", arguments, known, train_config)


def train(config: DictConfig) -> float | None:
    """One job, as Hydra's launchers call it.

    Returns: the monitored validation figure (of training, without a validation split), for sweepers
        to go by; None where the job failed.
    """
    from idl_cli.jobs.job import run_job
    from idl_cli.jobs.train import compute

    return run_job("train", config, compute)
