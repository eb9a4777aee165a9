"""What a run directory says of its run: the configuration, and which model its checkpoint is of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from idl_cli.config.implicit_options import ImplicitOptions
from idl_cli.config.schema import ModelConfig, TrainConfig, train_config
from idl_cli.config.sim_options import SimConfig, sim_config
from idl_cli.config.typed_settings import read_value
from idl_cli.errors import InputError

if TYPE_CHECKING:  # what was typed is read, and refused, before torch is loaded
    from idl_core.training import Checkpoint
    from idl_datasets import Dataset

Config = TypeVar("Config", TrainConfig, SimConfig)
_COMMANDS: dict[type, str] = {TrainConfig: "idl train", SimConfig: "idl sim"}


def read_recorded(directory: Path) -> TrainConfig | SimConfig:
    """The configuration of a run, every value checked anew: it may come from anywhere.

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


def read_config(directory: Path, kind: type[Config]) -> Config:
    """The configuration of a run of the command that `kind` is of. Raises: InputError."""
    config = read_recorded(directory)
    if not isinstance(config, kind):
        there, here = _COMMANDS[type(config)], _COMMANDS[kind]
        raise InputError(f"'{directory}' is a run of {there}, not of {here}")
    return config


def model_of(config: TrainConfig | SimConfig, checkpoint: Checkpoint) -> ModelConfig:
    """Which model a checkpoint of the run holds; what a solve finds, the checkpoint itself tells.

    Where the run insisted on a kernel, the model does not: what is at hand solves it as well.

    Raises: InputError.
    """
    model: ModelConfig
    if isinstance(config, TrainConfig):
        model = config.model
    else:
        model = read_value(ModelConfig, belongings(checkpoint).get("model"), "model")
    if isinstance(model, ImplicitOptions) and model.kernel == "triton":
        return replace(model, kernel="auto")
    return model


def belongings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says that it belongs to, see `training_parts.fingerprint`.

    Returns: model, task, input_shape, output_dim. Raises: InputError where it does not say.
    """
    try:
        facts: dict[str, Any] = json.loads(checkpoint.state["fingerprint"])
        return facts | {
            "task": str(facts["task"]),
            "input_shape": tuple(int(size) for size in facts["input_shape"]),
            "output_dim": int(facts["output_dim"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the checkpoint does not say what model it belongs to") from error


def check_fit(dataset: Dataset, checkpoint: Checkpoint) -> None:
    """Raise InputError where the data differ in shape or kind from those of the training."""
    facts = belongings(checkpoint)
    there = (math.prod(facts["input_shape"]), facts["output_dim"], facts["task"])
    here = (math.prod(dataset.input_shape), dataset.output_dim, dataset.task)
    if here != there:
        raise InputError(
            f"data={dataset.name} does not fit: it is {here[2]} of {here[0]} values a sample and "
            f"{here[1]} outputs; the run was trained for {there[2]} of {there[0]} and {there[1]}"
        )
