"""A training in one process: the fit, then the evaluation on the test split."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idl_cli.config.build_training import build_settings
from idl_cli.errors import InputError, RunFailed
from idl_cli.jobs.training.forecast import draw_forecast, persistence_metrics
from idl_cli.jobs.training.init_from import load_initial
from idl_cli.jobs.training.setup import TrainingSetup
from idl_cli.jobs.training.solver_watch import SolverWatch
from idl_cli.processes.device_memory import is_out_of_memory, out_of_memory
from idl_core.training import (
    Callback,
    CannotCapture,
    CheckpointError,
    CheckpointFolder,
    FitResult,
    Metrics,
    NonFiniteLoss,
    Progress,
    Team,
    evaluate,
    fit,
)
from idl_core.training.evaluation import device_of
from idl_datasets import SeriesDataset


@dataclass
class TrainingOutcome:
    """How a training ended.

    Attributes:
        test: metrics of the test split; empty where a signal ended the training.
        persistence: metrics of the forecast that nothing changes, by split; of series alone.
        solver_warnings: how often a solver ended short of its tolerance.
    """

    result: FitResult
    test: Metrics = field(default_factory=dict)
    persistence: dict[str, Metrics] = field(default_factory=dict)
    solver_warnings: int = 0

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> TrainingOutcome:
        """The reverse of `dataclasses.asdict`."""
        result = values["result"]
        progress = Progress(**result["progress"])
        return cls(**values | {"result": FitResult(**result | {"progress": progress})})


@dataclass
class TrainingContext:
    """The surroundings of a training: callbacks, stop, and the places where it saves.

    Attributes:
        stop: true once the training is to save and end.
        forecast: where the picture of a series' forecasts goes.
        resume: go on from the newest checkpoint.
        on_fitted: called before the test split is evaluated, and when the fit could not be saved.
    """

    callback: Callback
    say: Callable[[str], None]
    stop: Callable[[], bool]
    checkpoints: CheckpointFolder
    forecast: Path
    resume: bool
    team: Team = field(default_factory=Team)
    on_fitted: Callable[[TrainingOutcome], None] = lambda outcome: None


def fit_and_test(setup: TrainingSetup, context: TrainingContext) -> TrainingOutcome:
    """Fit the model, on one device or as one of a team, and evaluate it on the test split.

    Raises: InputError, RunFailed.
    """
    if not context.resume:
        load_initial(setup.model, setup.config.model, setup.dataset)
    with _explained_memory(setup), SolverWatch(context.say) as watch:
        result = _fit(setup, context, watch)
        outcome = TrainingOutcome(result, solver_warnings=watch.warnings)
        context.on_fitted(outcome)
        if not result.interrupted:
            _test(setup, context, outcome)
    outcome.solver_warnings = watch.warnings
    if not result.saved:
        context.on_fitted(outcome)
        raise RunFailed(
            f"step {result.progress.step} could not be saved: make room, then go on from the "
            "newest checkpoint with trainer.resume=<run>"
        )
    return outcome


@contextlib.contextmanager
def _explained_memory(setup: TrainingSetup) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what used the memory and what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        model, shape = setup.model, setup.dataset.input_shape
        trainer = setup.config.trainer
        raise out_of_memory(
            device_of(model), model, setup.components.optimizer, shape, trainer
        ) from error


def _test(setup: TrainingSetup, context: TrainingContext, outcome: TrainingOutcome) -> None:
    """Metrics of the test split; of a series persistence's too, of every split, and a picture."""
    trainer, dataset, model = setup.config.trainer, setup.dataset, setup.model
    size, precision = trainer.eval_batch_size, trainer.precision
    outcome.test = evaluate(model, dataset.test, setup.task, size, precision, context.team)
    if isinstance(dataset, SeriesDataset) and context.team.rank == 0:
        splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        outcome.persistence = {
            name: persistence_metrics(dataset, split, setup.task)
            for name, split in splits.items()
            if split is not None
        }
        draw_forecast(context.forecast, model, dataset, dataset.test, size, precision, context.say)


def _fit(setup: TrainingSetup, context: TrainingContext, watch: SolverWatch) -> FitResult:
    config, train = setup.config, setup.dataset.train
    settings = build_settings(config.trainer, config.seed)
    steps, warmup = settings.total_steps(len(train)), config.scheduler.warmup_steps
    if warmup >= steps:
        context.say(
            f"scheduler.warmup_steps={warmup}: the training ends after {steps} steps, before the "
            "learning rate has risen to optimizer.lr"
        )
    try:
        return fit(
            setup.components,
            settings,
            callback=context.callback,
            checkpoints=context.checkpoints,
            resume=context.resume,
            probe=watch.probe,
            stop=context.stop,
            team=context.team,
        )
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except CannotCapture as error:
        raise InputError(f"trainer.{error}") from error
    except NonFiniteLoss as error:
        kept = "the last good checkpoint is kept; " if context.checkpoints.folder.exists() else ""
        raise RunFailed(f"{error}: {kept}lower optimizer.lr or set trainer.grad_clip") from error
