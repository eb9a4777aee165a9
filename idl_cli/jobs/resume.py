"""Resuming a run: which one, and which settings may change.

A resumed run goes on in its own directory, with its own configuration. Settings typed beside
`trainer.resume=` may change only what does not alter the steps already made.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from idl_cli.config.data_options import SpikyConfig
from idl_cli.config.model_options import ImplicitConfig
from idl_cli.config.sim_config import SimConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.config.training_options import SweepConfig
from idl_cli.config.typed_settings import as_plain, read_settings
from idl_cli.errors import InputError
from idl_cli.jobs.request import JobRequest
from idl_cli.record.config_file import Config, recorded_config_of
from idl_cli.record.finder import existing_run
from idl_cli.record.reader import RunRecord, as_number, read_overrides
from idl_cli.record.run_directory import TRAINED, holds_run, own_words
from idl_cli.typed_words import typed_word

# Everything else decides what the steps are, or what belongs to them.
CHANGEABLE = (
    "debug",
    "logger",
    "data.root",
    "data.path",
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
    "sweep.resume",
)
# What idl sim solves, and how, comes after the steps, which are its teacher's.
SOLVED_ANEW = ("model", "solver")


@dataclass(frozen=True)
class Continuation(Generic[Config]):
    """How a job begins: its configuration, and the earlier run that it resumes, if any.

    Attributes:
        words: what was typed for the run, in this attempt and before.
        before: the configuration of the earlier run as it was so far.
        value: the metric of a job that is complete, and is not to be run again.
    """

    config: Config
    words: list[str]
    old: Path | None = None
    value: float | None = None
    before: Config | None = None


def continuation(request: JobRequest, config: Config) -> Continuation[Config]:
    """Decide from `trainer.resume`, `sweep.resume` and the cluster how a job begins.

    Args:
        config: as it would be were it new.

    Raises: InputError where the run that is meant is none, or another than this one.
    """
    resume, output, typed = config.trainer.resume, request.output, request.typed
    if request.number is None and config.sweep.resume is not None:
        raise InputError(
            f"sweep.resume={config.sweep.resume}: it goes on with a sweep, and needs -m; "
            "a single run goes on with trainer.resume="
        )
    if request.number is not None and (config.sweep.resume is not None or requeued(request)):
        return _sweep_job(config, typed, output, request.number)
    if resume is not None and resume != "auto":
        old = existing_run(resume, key="trainer.resume=")
        return _changed(config, old, request.values, typed)
    if resume is None or not holds_run(output):
        return Continuation(as_new(config), own_words(typed))
    if not (output / "config.yaml").exists() or own_words(typed) == read_overrides(output):
        return _same_again(config, typed, output)
    return _changed(config, output, request.values, typed)


def _changed(
    config: Config, old: Path, composed: Mapping[str, Any], typed: Sequence[str]
) -> Continuation[Config]:
    """Resume a run with its own configuration and the settings typed now."""
    before: list[str] = read_overrides(old)
    newest = {word.split("=")[0]: word for word in before}
    words: list[str] = [word for word in own_words(typed) if newest.get(word.split("=")[0]) != word]
    saved = recorded_config_of(old, type(config))
    try:
        config = resumed_config(saved, composed, words)
    except CannotChange as error:
        raise InputError(f"{error}{_from_its_weights(saved, old)}") from error
    return Continuation(config, [*before, *words], old, before=saved)


def _from_its_weights(saved: TrainConfig | SimConfig, old: Path) -> str:
    """How a new run can begin with the weights of the old one, where it can."""
    if not isinstance(saved, TrainConfig) or not isinstance(saved.model, ImplicitConfig):
        return ""
    return f", or one that begins with its weights: idl train {typed_word('model.init_from', old)}"


def _same_again(config: Config, typed: Sequence[str], output: Path) -> Continuation[Config]:
    """Resume a run by the same command.

    What was learnt belongs to the configuration that was written down; where nothing was yet, that
    may be of an attempt that was refused.
    """
    config = recorded_config_of(output, type(config)) if has_learnt(output) else as_new(config)
    return Continuation(config, own_words(typed), output)


def _sweep_job(
    config: Config, typed: Sequence[str], output: Path, job: int
) -> Continuation[Config]:
    """Resume a job of an earlier sweep, or take its value if it is complete."""
    if not holds_run(output):
        return Continuation(as_new(config), own_words(typed))
    before = read_overrides(output)
    if (output / "config.yaml").exists() and own_words(typed) != before:
        raise InputError(
            f"sweep.resume={output.parent}: job {job} there was made with "
            f"'{' '.join(before)}'; give the same words in the same order"
        )
    record = RunRecord.read(output)
    if record.status != "completed":
        return _same_again(config, typed, output)
    value = as_number(record.value(str(record.summary.get("ranked_by"))))
    return Continuation(config, before, output, math.nan if value is None else value)


def has_learnt(run: Path) -> bool:
    """Whether a run directory has a checkpoint, and the configuration that it belongs to."""
    learnt = (run / folder for folder in TRAINED)
    return (run / "config.yaml").exists() and any(any(f.glob("*.safetensors")) for f in learnt)


def requeued(request: JobRequest) -> bool:
    """Whether SLURM, or submitit on this machine, runs this job another time."""
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0:
        return True
    if request.cluster_job is None:
        return False
    return RunRecord.read(request.output).summary.get("cluster_job") == request.cluster_job


def as_new(config: Config) -> Config:
    """The configuration for config.yaml: absolute paths, and no trainer.resume or sweep.resume."""
    trainer, data = dataclasses.replace(config.trainer, resume=None), config.data
    if not isinstance(data, SpikyConfig) and data.path is not None:
        path = Path(data.path).expanduser().absolute()
        data = dataclasses.replace(data, path=str(path))
    return dataclasses.replace(config, data=data, trainer=trainer, sweep=SweepConfig())


class CannotChange(InputError):
    """A setting that resuming cannot change."""


def resumed_config(saved: Config, composed: Mapping[str, Any], typed: Sequence[str]) -> Config:
    """The run's own configuration with the typed settings changed.

    Raises: CannotChange for what the steps already made would not survive.
    """
    values = as_plain(saved)
    for word in typed:
        key = word.partition("=")[0].lstrip("+~").partition("@")[0]
        if key == "experiment":
            raise InputError("a resumed run keeps its configuration: leave experiment= out")
        _copy(key.split("."), composed, values)
    config = as_new(read_settings(type(saved), values))
    before, after = _flat(as_plain(saved)), _flat(as_plain(config))
    free = (*CHANGEABLE, *SOLVED_ANEW) if isinstance(saved, SimConfig) else CHANGEABLE
    # First whether it is another model or data set: that is what its other keys follow from.
    for key in sorted(before.keys() | after.keys(), key=lambda key: (key[-5:] != ".name", key)):
        changeable = any(key == name or key.startswith(f"{name}.") for name in free)
        if before.get(key) != after.get(key) and not changeable:
            raise CannotChange(
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
