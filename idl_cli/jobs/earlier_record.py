"""The record of a run that is resumed: it is never replaced by less."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idl_cli.atomic_write import write_whole
from idl_cli.config.build_training import build_schedule, build_settings
from idl_cli.config.sim_config import SimConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.errors import InputError
from idl_cli.jobs.training.setup import TrainingSetup
from idl_cli.record.metrics_reader import read_metrics
from idl_cli.record.reader import RunRecord
from idl_cli.record.run_directory import RunDirectory

_NOTEWORTHY = 0.05  # a relative change of the learning rate beyond what one step makes


@dataclass(frozen=True)
class EarlierRecord:
    """The record of a complete run as it was found, to be put back where nothing is added to it."""

    summary: dict[str, Any]
    files: dict[Path, bytes]

    @classmethod
    def of(cls, directory: RunDirectory) -> EarlierRecord | None:
        """The record in a directory; None where there is none of a complete run."""
        record = RunRecord.read(directory.path)
        if record.status != "completed":
            return None
        paths = (directory.config, directory.overrides, directory.metrics, directory.summary)
        return cls(record.summary, {path: path.read_bytes() for path in paths if path.exists()})

    def adds_nothing(self, steps: int) -> bool:
        """Whether a run that is now at so many steps has made none beyond this record."""
        known = self.summary.get("steps")
        return isinstance(known, int) and steps <= known

    def put_back(self) -> None:
        """Write the files as they were. Raises: OSError."""
        for path, content in self.files.items():
            write_whole(path, content)


def begin_anew(directory: RunDirectory) -> str:
    """Prepare a run without checkpoints to begin from its first step.

    What metrics there are of an earlier attempt are kept in a file beside metrics.jsonl.

    Returns: what there is to say.
    Raises: InputError where the run is complete: its record would be lost.
    """
    if RunRecord.read(directory.path).status == "completed":
        raise InputError(
            f"trainer.resume={directory.shown}: the run is complete and its checkpoints are gone: "
            "there is nothing to go on from, and its record is kept; start a new run instead"
        )
    said = f"{directory.shown} has no checkpoint yet: it begins anew"
    if not read_metrics(directory.metrics):
        return said
    names = (directory.metrics.with_suffix(f".{number}.jsonl") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    with contextlib.suppress(OSError):
        directory.metrics.rename(kept)
        said += f"; the metrics so far are kept in {kept.name}"
    return said


def refuse_fewer_steps(setup: TrainingSetup, done: int) -> None:
    """Raise InputError where a run that has made `done` steps is to end before them."""
    trainer = setup.config.trainer
    count = len(setup.dataset.train)
    total = build_settings(trainer, setup.config.seed).total_steps(count)
    if done > total:
        key = "max_steps" if trainer.max_steps == total else "max_epochs"
        per_epoch = math.ceil(count / trainer.batch_size)
        raise InputError(
            f"trainer.{key}={getattr(trainer, key)}: that is {total} steps, and the run has made "
            f"{done} ({done / per_epoch:.3g} epochs): give more, or leave it out"
        )


def rate_change(before: TrainConfig | SimConfig, setup: TrainingSetup, done: int) -> str | None:
    """What there is to say of the learning rate where another length moves the schedule.

    Args:
        before: the configuration of the steps so far, of which there are `done`.
    """
    count = len(setup.dataset.train)
    per_epoch = math.ceil(count / before.trainer.batch_size)
    total, new_total = (
        build_settings(config.trainer, config.seed).total_steps(count)
        for config in (before, setup.config)
    )
    was, now = build_schedule(before.scheduler, total, per_epoch), setup.components.schedule
    last, due, following = was(max(0, done - 1)), was(done), now(done)
    if math.isclose(due, following) or math.isclose(last, following, rel_tol=_NOTEWORTHY):
        return None
    lr = float(setup.components.optimizer.param_groups[0]["lr"])
    return (
        f"scheduler={before.scheduler.name} is over {new_total} steps now, not {total}: at step "
        f"{done} the learning rate goes from {lr * last:.2g} to {lr * following:.2g}"
    )
