"""`idl train`: train a model. torch is imported only once the configuration has been checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from omegaconf import DictConfig

from idl_cli.config.train_config import TrainConfig, train_config
from idl_cli.config.typed_settings import known_keys
from idl_cli.hydra_app.hydra_job import run_hydra_job
from idl_cli.hydra_app.run_command import run_hydra_command


def main(arguments: Sequence[str]) -> int:
    """Run `idl train`. Raises: InputError, RunFailed."""
    known = {**known_keys(TrainConfig), "experiment": []}
    return run_hydra_command(train, "train", arguments, known, train_config)


def train(config: DictConfig) -> float | None:
    """One job, as Hydra's launchers call it.

    Returns: the monitored validation metric (of training, without a validation split), for sweepers
        to go by; None where the job failed.
    """
    from idl_cli.jobs.job import run_job
    from idl_cli.jobs.train import compute

    return run_hydra_job(config, partial(run_job, "train", compute))
