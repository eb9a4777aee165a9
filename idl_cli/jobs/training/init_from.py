"""`model.init_from`: a training that starts from the weights of an earlier run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from idl_cli.config.model_options import ImplicitConfig, ModelConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.errors import InputError
from idl_cli.record.checkpoints import chosen_checkpoint, load_checkpoint
from idl_cli.record.config_file import recorded_config
from idl_cli.record.finder import existing_run
from idl_cli.record.fingerprint import check_fit, model_of
from idl_core.training import Checkpoint
from idl_datasets import Dataset

# Other values of these would make other weights.
_SHAPING = ("hidden_dim", "activation", "wellposed", "no_D", "bias", "is_low_rank", "rank")


def with_initial_options(config: TrainConfig, typed: Sequence[str]) -> TrainConfig:
    """The configuration with the options of the run that `model.init_from` names.

    What was typed, or is not as it is by default, stays.

    Raises: InputError where there is no such run, it is of another model, or what was typed would
        make weights of another shape.
    """
    model = config.model
    if not isinstance(model, ImplicitConfig) or model.init_from is None:
        return config
    run = existing_run(model.init_from, key="model.init_from=")
    source = model_of(recorded_config(run), chosen_checkpoint(run / "checkpoints", "best"))
    if not isinstance(source, ImplicitConfig):
        raise InputError(
            f"model.init_from={run}: it is a run of model={source.name}, not of an implicit model"
        )
    words = {word.partition("=")[0].lstrip("+") for word in typed}
    default, chosen = as_plain(ImplicitConfig()), as_plain(model)
    options: dict[str, Any] = as_plain(source) | {"init_from": str(run.absolute())}
    for name, value in chosen.items():
        if name == "init_from" or (f"model.{name}" not in words and value == default[name]):
            continue
        if name in _SHAPING and value != options[name]:
            raise InputError(
                f"model.{name}={value}: model.init_from={run} has {options[name]}; leave it out"
            )
        options[name] = value
    return dataclasses.replace(config, model=ImplicitConfig(**options))


def initial_run(config: ModelConfig) -> Path | None:
    """The run that `model.init_from` names, if any."""
    if not isinstance(config, ImplicitConfig) or config.init_from is None:
        return None
    return Path(config.init_from)


def initial_checkpoint(config: ModelConfig) -> Checkpoint | None:
    """The checkpoint that `model.init_from` names, if any. Raises: InputError."""
    run = initial_run(config)
    return None if run is None else chosen_checkpoint(run / "checkpoints", "best")


def load_initial(model: nn.Module, config: ModelConfig, dataset: Dataset) -> None:
    """Put the weights of the run that `model.init_from` names into a model. Raises: InputError."""
    if checkpoint := initial_checkpoint(config):
        assert isinstance(config, ImplicitConfig)
        check_fit(dataset, checkpoint)
        load_checkpoint(model, checkpoint, Path(str(config.init_from)))
