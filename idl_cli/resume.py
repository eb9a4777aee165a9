"""Going on with a run: which one, and what may be changed while doing so.

A resumed run goes on in its own directory, with its own configuration; of what is typed beside
`trainer.resume=` only that counts which leaves the steps already made valid.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from idl_cli.errors import InputError
from idl_cli.run_directory import holds_run
from idl_cli.run_lookup import existing_run
from idl_cli.schema import TrainConfig, as_plain, train_config

# Everything else decides what the steps are, or what belongs to them.
CHANGEABLE = (
    "debug",
    "logger",
    "data.root",
    "data.download",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.patience",
    "trainer.log_every",
    "trainer.checkpoint_seconds",
    "trainer.eval_batch_size",
    "trainer.device",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.resume",
)


def run_to_resume(resume: str | None, output: Path) -> Path | None:
    """The directory to go on with, or None to start anew.

    Args:
        resume: `trainer.resume`; 'auto' goes on with `output` if that is a run.

    Raises: InputError where the directory that was named is no run.
    """
    if resume is None:
        return None
    if resume == "auto":
        return output if holds_run(output) and (output / "config.yaml").exists() else None
    return existing_run(resume, key="trainer.resume=")


def read_config(directory: Path) -> TrainConfig:
    """The configuration of a run, every value checked anew: it may come from anywhere.

    Raises: InputError where it is damaged or no configuration of `idl train`.
    """
    path = directory / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"'{directory}' is no run of idl train: it has no config.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error
    try:
        return train_config(values)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def resumed_config(
    saved: TrainConfig, composed: Mapping[str, Any], typed: Sequence[str]
) -> TrainConfig:
    """The run's own configuration with what was typed put into it.

    Raises: InputError for a change that the steps already made would not survive.
    """
    values = as_plain(saved)
    for override in OverridesParser.create().parse_overrides(list(typed)):
        key = override.key_or_group
        if key == "experiment":
            raise InputError("a resumed run keeps its configuration: leave experiment= out")
        _copy(key.split("."), composed, values)
    values["trainer"]["resume"] = None
    config = train_config(values)
    before, after = _flat(as_plain(saved)), _flat(as_plain(config))
    for key in sorted(before.keys() | after.keys()):
        changeable = any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE)
        if before.get(key) != after.get(key) and not changeable:
            raise InputError(
                f"{key}={after.get(key)}: the run was made with {before.get(key)}, and resuming "
                "cannot change it; start a new run instead"
            )
    return config


def _copy(path: Sequence[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Put the value at `path` of the source at the same place of the target."""
    for name in path[:-1]:
        source = source[name]
        target = target.setdefault(name, {})
    if path[-1] in source:
        target[path[-1]] = copy.deepcopy(source[path[-1]])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
