"""The fingerprint of a checkpoint: the model, and the kind and shape of the data, as JSON in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from idl_cli.config.model_options import ImplicitConfig, ImplicitOptions, ModelConfig
from idl_cli.config.sim_config import SimConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.config.typed_settings import as_plain, read_value
from idl_cli.errors import InputError
from idl_core.training import Checkpoint
from idl_datasets import Dataset, TextDataset


def fingerprint(model: ModelConfig, dataset: Dataset) -> str:
    """What a checkpoint must share with a model to be loaded into it, as JSON."""
    # Neither the kernel nor where the first weights came from changes what the weights mean: a run
    # may go on with another.
    described = {key: value for key, value in as_plain(model).items() if key != "kernel"}
    if isinstance(model, ImplicitConfig):
        described["init_from"] = None
    facts: dict[str, Any] = {
        "model": described,
        "task": dataset.task,
        "input_shape": list(dataset.input_shape),
        "output_dim": dataset.output_dim,
    }
    if isinstance(dataset, TextDataset):
        facts["tokenizer"] = dataset.tokenizer.state()
    return json.dumps(facts, sort_keys=True)


def read_fingerprint(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fingerprint of a checkpoint: model, task, input_shape, output_dim.

    Raises: InputError where it has none.
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


def model_of(config: TrainConfig | SimConfig, checkpoint: Checkpoint) -> ModelConfig:
    """Which model a run's checkpoint holds: for `idl sim` that is in the checkpoint itself.

    A run that insisted on kernel=triton can be loaded where there is no GPU: the kernel becomes
    `auto`.

    Raises: InputError.
    """
    model: ModelConfig
    if isinstance(config, TrainConfig):
        model = config.model
    else:
        model = read_value(ModelConfig, read_fingerprint(checkpoint).get("model"), "model")
    if isinstance(model, ImplicitOptions) and model.kernel in ("numba", "triton"):
        return replace(model, kernel="auto")
    return model


def check_fit(dataset: Dataset, checkpoint: Checkpoint) -> None:
    """Raise InputError where the data differ in shape or kind from those of the training."""
    facts = read_fingerprint(checkpoint)
    there = (math.prod(facts["input_shape"]), facts["output_dim"], facts["task"])
    here = (math.prod(dataset.input_shape), dataset.output_dim, dataset.task)
    if here != there:
        raise InputError(
            f"data={dataset.name} does not fit: it is {here[2]} of {here[0]} values a sample and "
            f"{here[1]} outputs; the run was trained for {there[2]} of {there[0]} and {there[1]}"
        )
