"""A training in one process: what it is made of, the fit, and the evaluation on the test split."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idl_cli.config import build
from idl_cli.config.schema import ImplicitConfig, ModelConfig, TrainConfig, as_plain
from idl_cli.errors import InputError, RunFailed
from idl_cli.jobs.training.forecast import draw_forecast, persistence_figures
from idl_cli.jobs.training.init_from import initial_checkpoint, load_initial
from idl_cli.jobs.training.solver_watch import SolverWatch
from idl_cli.processes.memory import is_out_of_memory, out_of_memory
from idl_cli.record.config_file import check_fit
from idl_cli.record.normalisation import as_trained, kept_normalisation, targets_like_inputs
from idl_core.training import (
    Callback,
    CannotCapture,
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    FitResult,
    Metrics,
    NonFiniteLoss,
    Progress,
    Task,
    Team,
    TrainingComponents,
    evaluate,
    fit,
)
from idl_core.training.evaluation import device_of
from idl_datasets import Dataset, SeriesDataset, TextDataset


@dataclass
class Ingredients:
    """All that a training is made of, built before anything is written."""

    config: TrainConfig
    dataset: Dataset
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer


@dataclass
class Outcome:
    """How a training ended: here, or in workers of which rank 0 tells it.

    Attributes:
        test: figures on the test split; empty where a signal ended the training.
        persistence: figures of the forecast that nothing changes, by split; of series alone.
        solver_warnings: how often a solver fell short.
    """

    result: FitResult
    test: Metrics
    persistence: dict[str, Metrics]
    solver_warnings: int

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> Outcome:
        """Out of what `asdict` made of one."""
        result = values["result"]
        progress = Progress(**result["progress"])
        return cls(**values | {"result": FitResult(**result | {"progress": progress})})


def fingerprint(model: ModelConfig, dataset: Dataset) -> str:
    """What a checkpoint must share with a model to be loaded into it, as JSON."""
    # Neither what solves an equilibrium nor where its first weights came from changes it: a run may
    # go on with another.
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


def checkpoint_folder(path: Path, model: ModelConfig, dataset: Dataset) -> CheckpointFolder:
    """The checkpoints of a model of a configuration that is trained on a data set."""
    return CheckpointFolder(path, fingerprint(model, dataset), kept_normalisation(dataset))


def build_parts(
    config: TrainConfig,
    device: torch.device,
    progress: Callable[[str, int, int | None], None],
    trained: Checkpoint | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Ingredients:
    """All that a training is made of, on its device.

    Args:
        trained: whose weights the model is to have, and behind whose normalisation it goes on;
            None: those of `model.init_from`, if any.

    Raises: InputError.
    """
    dataset = build.build_dataset(config.data, config.seed, progress)
    if getattr(config.model, "differences", False):
        dataset = targets_like_inputs(dataset)
    if trained := trained or initial_checkpoint(config.model):
        check_fit(dataset, trained)
        dataset = as_trained(dataset, trained, say)
    dataset = dataset.to(device)
    task = build.build_task(dataset, config.trainer.monitor)
    torch.manual_seed(config.seed)
    model = build.build_model(config.model, dataset)
    model = model.to(device, torch.float64 if config.trainer.precision == "64" else None)
    optimizer = build.build_optimizer(config.optimizer, model.parameters())
    if getattr(config.model, "kernel", "auto") == "triton":
        build.try_once(model, dataset)
    return Ingredients(config, dataset, model, task, optimizer)


def train_parts(
    parts: Ingredients,
    callback: Callback,
    say: Callable[[str], None],
    checkpoints: CheckpointFolder,
    stop: Callable[[], bool],
    forecast: Path,
    *,
    resume: bool,
    team: Team,
    fitted: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Fit, and evaluate on the test split: on one device, as one of a team.

    Args:
        forecast: where the picture of a series' forecasts goes.
        fitted: told how it stands before the test split is evaluated, and at a failure after it.

    Raises: InputError, RunFailed.
    """
    if not resume:
        load_initial(parts.model, parts.config.model, parts.dataset)
    with _explained_memory(parts), SolverWatch(say) as watch:
        result = _fit(parts, callback, say, watch, checkpoints, stop, resume=resume, team=team)
        outcome = Outcome(result, {}, {}, watch.warnings)
        fitted(outcome)
        if not result.interrupted:
            _evaluate_test(parts, outcome, forecast, say, team)
    outcome.solver_warnings = watch.warnings
    if not result.saved:
        fitted(outcome)
        raise RunFailed(
            f"step {result.progress.step} could not be saved: make room, then go on from the "
            "newest checkpoint with trainer.resume=<run>"
        )
    return outcome


@contextlib.contextmanager
def _explained_memory(parts: Ingredients) -> Iterator[None]:
    """Turn an error that says only that memory is used up into what used it and what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        device, shape = device_of(parts.model), parts.dataset.input_shape
        trainer = parts.config.trainer
        raise out_of_memory(device, parts.model, parts.optimizer, shape, trainer) from error


def _evaluate_test(
    parts: Ingredients,
    outcome: Outcome,
    forecast: Path,
    say: Callable[[str], None],
    team: Team,
) -> None:
    """Figures of the test split; of a series persistence's too, of every split, and a picture."""
    trainer, dataset = parts.config.trainer, parts.dataset
    size, precision = trainer.eval_batch_size, trainer.precision
    outcome.test = evaluate(parts.model, dataset.test, parts.task, size, precision, team)
    if isinstance(dataset, SeriesDataset) and team.rank == 0:
        splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        outcome.persistence = {
            name: persistence_figures(dataset, split, parts.task)
            for name, split in splits.items()
            if split is not None
        }
        draw_forecast(forecast, parts.model, dataset, dataset.test, size, precision, say)


def _fit(
    parts: Ingredients,
    callback: Callback,
    say: Callable[[str], None],
    watch: SolverWatch,
    checkpoints: CheckpointFolder,
    stop: Callable[[], bool],
    *,
    resume: bool,
    team: Team,
) -> FitResult:
    config, train = parts.config, parts.dataset.train
    settings = build.build_settings(config.trainer, config.seed)
    per_epoch = -(-len(train) // settings.batch_size)
    steps, warmup = settings.total_steps(len(train)), config.scheduler.warmup_steps
    if warmup >= steps:
        say(
            f"scheduler.warmup_steps={warmup}: the training ends after {steps} steps, before the "
            "learning rate has risen to optimizer.lr"
        )
    schedule = build.build_schedule(config.scheduler, steps, per_epoch)
    try:
        components = TrainingComponents(
            parts.model, parts.task, parts.optimizer, train, parts.dataset.val, schedule
        )
        return fit(
            components,
            settings,
            callback=callback,
            checkpoints=checkpoints,
            resume=resume,
            probe=watch.probe,
            stop=stop,
            team=team,
        )
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except CannotCapture as error:
        raise InputError(f"trainer.{error}") from error
    except NonFiniteLoss as error:
        kept = "the last good checkpoint is kept; " if checkpoints.folder.exists() else ""
        raise RunFailed(f"{error}: {kept}lower optimizer.lr or set trainer.grad_clip") from error
