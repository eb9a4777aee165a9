"""Reading config.yaml of a run of `idl train` or `idl sim`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml

from idl_cli.config.sim_config import SimConfig, sim_config
from idl_cli.config.train_config import TrainConfig, train_config
from idl_cli.errors import InputError

Config = TypeVar("Config", TrainConfig, SimConfig)
_COMMANDS: dict[type, str] = {TrainConfig: "idl train", SimConfig: "idl sim"}


def recorded_config(directory: Path) -> TrainConfig | SimConfig:
    """The configuration of a run, every value checked: the file may come from elsewhere.

    Raises: InputError where it is damaged or of another command.
    """
    path = directory / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"'{directory}' is no run of idl train: it has no config.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error
    is_sim = isinstance(values, dict) and "solver" in values
    try:
        return sim_config(values) if is_sim else train_config(values)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def recorded_config_of(directory: Path, kind: type[Config]) -> Config:
    """The configuration of a run that must be of the command of `kind`. Raises: InputError."""
    config = recorded_config(directory)
    if not isinstance(config, kind):
        there, here = _COMMANDS[type(config)], _COMMANDS[kind]
        raise InputError(f"'{directory}' is a run of {there}, not of {here}")
    return config
