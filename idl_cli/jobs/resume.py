"""Going on with a run: which one, and what may be changed while doing so.

A resumed run goes on in its own directory, with its own configuration; of what is typed beside
`trainer.resume=` only that counts which leaves the steps already made valid.
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

from hydra.core.override_parser.overrides_parser import OverridesParser

from idl_cli.config.schema import SweepConfig, as_plain
from idl_cli.config.sequence_options import SpikyConfig
from idl_cli.config.sim_options import SimConfig
from idl_cli.config.typed_settings import read_settings
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.record.config_file import Config, read_config
from idl_cli.record.finder import existing_run
from idl_cli.record.reader import RunRecord, as_number, read_overrides
from idl_cli.record.run_directory import TRAINED, holds_run, own_words

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
    """What a job is to do: with which configuration, in which earlier run's directory, if any.

    Attributes:
        words: what was typed for the run, in this attempt and before.
        value: the figure of a job that is complete, and is not to be run again.
    """

    config: Config
    words: list[str]
    old: Path | None = None
    value: float | None = None


def continuation(job: Job, config: Config) -> Continuation[Config]:
    """How `trainer.resume`, `sweep.resume` and the cluster want a job to begin.

    Args:
        config: as it would be were it new.

    Raises: InputError where the run that is meant is none, or another than this one.
    """
    resume, output, typed = config.trainer.resume, job.output, job.typed
    if job.number is None and config.sweep.resume is not None:
        raise InputError(
            f"sweep.resume={config.sweep.resume}: it goes on with a sweep, and needs -m; "
            "a single run goes on with trainer.resume="
        )
    if job.number is not None and (config.sweep.resume is not None or requeued(job)):
        return _sweep_job(config, typed, output, job.number)
    if resume is not None and resume != "auto":
        old = existing_run(resume, key="trainer.resume=")
        return _changed(config, old, job.values, typed)
    if resume is None or not holds_run(output):
        return Continuation(as_new(config), own_words(typed))
    if not (output / "config.yaml").exists() or own_words(typed) == read_overrides(output):
        return _same_again(config, typed, output)
    return _changed(config, output, job.values, typed)


def _changed(
    config: Config, old: Path, composed: Mapping[str, Any], typed: Sequence[str]
) -> Continuation[Config]:
    """A run to go on with as it was, but for what was typed now."""
    before: list[str] = read_overrides(old)
    newest = {word.split("=")[0]: word for word in before}
    words: list[str] = [word for word in own_words(typed) if newest.get(word.split("=")[0]) != word]
    saved = read_config(old, type(config))
    return Continuation(resumed_config(saved, composed, words), [*before, *words], old)


def _same_again(config: Config, typed: Sequence[str], output: Path) -> Continuation[Config]:
    """The same command once more, over what there is of its run.

    What was learnt belongs to the configuration that was written down; where nothing was yet, that
    may be of an attempt that was refused.
    """
    config = read_config(output, type(config)) if has_learnt(output) else as_new(config)
    return Continuation(config, own_words(typed), output)


def _sweep_job(
    config: Config, typed: Sequence[str], output: Path, job: int
) -> Continuation[Config]:
    """A job of a sweep that was run before, to its end or not."""
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
    """Whether a run directory holds anything that was learnt, and with which configuration."""
    learnt = (run / folder for folder in TRAINED)
    return (run / "config.yaml").exists() and any(any(f.glob("*.safetensors")) for f in learnt)


def requeued(job: Job) -> bool:
    """Whether SLURM, or submitit on this machine, runs this job another time."""
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0:
        return True
    if job.cluster_job is None:
        return False
    return RunRecord.read(job.output).summary.get("cluster_job") == job.cluster_job


def as_new(config: Config) -> Config:
    """The configuration as it is written down: good from any folder, without how it began."""
    trainer, data = dataclasses.replace(config.trainer, resume=None), config.data
    if not isinstance(data, SpikyConfig) and data.path is not None:
        path = Path(data.path).expanduser().absolute()
        data = dataclasses.replace(data, path=str(path))
    return dataclasses.replace(config, data=data, trainer=trainer, sweep=SweepConfig())


def resumed_config(saved: Config, composed: Mapping[str, Any], typed: Sequence[str]) -> Config:
    """The run's own configuration with what was typed put into it.

    Raises: InputError for a change that the steps already made would not survive.
    """
    values = as_plain(saved)
    for override in OverridesParser.create().parse_overrides(list(typed)):
        key = override.key_or_group
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
