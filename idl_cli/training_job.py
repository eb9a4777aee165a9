"""What `idl train` does: build what the configuration names, fit it, evaluate it, record it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from idl_cli import build
from idl_cli.errors import InputError, RunFailed
from idl_cli.forecast import NAME as FORECAST
from idl_cli.forecast import draw_forecast, persistence_figures
from idl_cli.job import Interrupted, Job
from idl_cli.metrics_record import MetricsRecord
from idl_cli.results_table import print_results
from idl_cli.resume import read_config, resumed_config, run_to_resume
from idl_cli.run_directory import RunDirectory
from idl_cli.saved_tokenizer import write_tokenizer
from idl_cli.schema import ModelConfig, TrainConfig, WandbConfig, as_plain, train_config
from idl_cli.solver_watch import SolverWatch
from idl_cli.stop_signals import StopSignals
from idl_core.training import (
    Callback,
    Callbacks,
    CheckpointError,
    CheckpointFolder,
    FitResult,
    NonFiniteLoss,
    Task,
    evaluate,
    fit,
)
from idl_datasets import Dataset, SeriesDataset, TextDataset


@dataclass
class Ingredients:
    """All that a training is made of, built before anything is written."""

    config: TrainConfig
    dataset: Dataset
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer


def compute(job: Job) -> float:
    """Train, evaluate and record. Returns the monitored figure.

    Raises: InputError, RunFailed (the loss became non-finite), Interrupted (a signal; saved).
    """
    config = train_config(job.values)
    old = run_to_resume(config.trainer.resume, job.output)
    if old is not None:
        config = resumed_config(read_config(old), job.values, job.typed)
    parts = _build(job, config)
    with StopSignals() as stop:
        directory = _open_directory(job, config, old)
        if old is None and isinstance(parts.dataset, TextDataset):
            write_tokenizer(directory.path, parts.dataset.tokenizer)
        with _recording(job, config, directory) as (callback, watch):
            checkpoints = CheckpointFolder(
                directory.checkpoints, fingerprint(config.model, parts.dataset)
            )
            result = _fit(parts, callback, watch, checkpoints, stop, resume=old is not None)
            job.facts |= _facts(result, watch)
            if result.interrupted:
                again = f"idl train trainer.resume={directory.shown}"
                raise Interrupted(
                    f"stopped at step {result.progress.step} and saved; go on with: {again}",
                    stop.exit_code,
                )
            job.screen.close()
            job.facts |= _evaluate_test(parts, directory.figures / FORECAST)
            callback.on_evaluation(result.progress, "test", job.facts["test"], False)
        _show(job, result)
    if stop.received and job.number is not None:  # too late for this job, meant for the sweep
        raise Interrupted("stopped after a job that was just complete", stop.exit_code)
    return (result.val or result.train)[config.trainer.monitor]


def fingerprint(model: ModelConfig, dataset: Dataset) -> str:
    """What a checkpoint must share with a model to be loaded into it, as JSON."""
    facts = {
        "model": as_plain(model),
        "task": dataset.task,
        "input_shape": list(dataset.input_shape),
        "output_dim": dataset.output_dim,
    }
    if isinstance(dataset, TextDataset):
        facts["tokenizer"] = dataset.tokenizer.state()
    return json.dumps(facts, sort_keys=True)


def _build(job: Job, config: TrainConfig) -> Ingredients:
    device = build.choose_device(config.trainer.device)
    dataset = build.build_dataset(config.data, config.seed, job.screen.loading)
    task = build.build_task(dataset, config.trainer.monitor)
    torch.manual_seed(config.seed)
    model = build.build_model(config.model, dataset)
    model = model.to(device, torch.float64 if config.trainer.precision == "64" else None)
    optimizer = build.build_optimizer(config.optimizer, model.parameters())
    job.facts |= {
        "seed": config.seed,
        "device": build.device_name(device),
        "parameters": build.count_parameters(model),
        "ranked_by": f"{'val' if dataset.val else 'train'}.{config.trainer.monitor}",
    }
    return Ingredients(config, dataset.to(device), model, task, optimizer)


def _open_directory(job: Job, config: TrainConfig, old: Path | None) -> RunDirectory:
    """A new run directory, or the one to go on in, with the configuration written down."""
    typed = [word for word in job.typed if not word.startswith("trainer.resume=")]
    if old is None:
        directory = job.claim()
    else:
        directory = job.directory = RunDirectory.reopen(old)
        with contextlib.suppress(OSError, yaml.YAMLError, TypeError):
            before = yaml.safe_load(directory.overrides.read_text("utf-8"))
            typed = [*before, *(word for word in typed if word not in before)]
    directory.write_settings(as_plain(config), typed)
    return directory


@contextlib.contextmanager
def _recording(
    job: Job, config: TrainConfig, directory: RunDirectory
) -> Iterator[tuple[Callbacks, SolverWatch]]:
    """Everything that listens to the training."""
    metrics = MetricsRecord(directory.metrics)
    members: list[Callback] = [metrics, job.screen]
    with contextlib.ExitStack() as stack:
        stack.callback(metrics.close)
        if isinstance(config.logger, WandbConfig):
            from idl_cli.wandb_record import WandbRecord

            record = WandbRecord(config, directory, job.sweep, job.screen.say)
            stack.callback(record.close)
            members.append(record)
        watch = stack.enter_context(SolverWatch(job.screen.say))
        yield Callbacks(members), watch


def _fit(
    parts: Ingredients,
    callback: Callbacks,
    watch: SolverWatch,
    checkpoints: CheckpointFolder,
    stop: StopSignals,
    *,
    resume: bool,
) -> FitResult:
    config, train = parts.config, parts.dataset.train
    settings = build.build_settings(config.trainer, config.seed)
    per_epoch = -(-len(train) // settings.batch_size)
    schedule = build.build_schedule(config.scheduler, settings.total_steps(len(train)), per_epoch)
    try:
        return fit(
            parts.model,
            train,
            parts.dataset.val,
            parts.task,
            parts.optimizer,
            settings,
            schedule=schedule,
            callback=callback,
            checkpoints=checkpoints,
            resume=resume,
            probe=watch.probe,
            stop=stop,
        )
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except NonFiniteLoss as error:
        kept = "the last good checkpoint is kept; " if checkpoints.folder.exists() else ""
        raise RunFailed(f"{error}: {kept}lower optimizer.lr or set trainer.grad_clip") from error


def _evaluate_test(parts: Ingredients, forecast: Path) -> dict[str, Any]:
    """The figures of the test split; of a series also persistence's, of every split, and a picture.

    Args:
        forecast: where the picture goes.
    """
    trainer, dataset = parts.config.trainer, parts.dataset
    size, precision = trainer.eval_batch_size, trainer.precision
    facts: dict[str, Any] = {
        "test": evaluate(parts.model, dataset.test, parts.task, size, precision)
    }
    if isinstance(dataset, SeriesDataset):
        splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        facts["persistence"] = {
            name: persistence_figures(dataset, split, parts.task)
            for name, split in splits.items()
            if split is not None
        }
        draw_forecast(forecast, parts.model, dataset, dataset.test, size, precision)
    return facts


def _facts(result: FitResult, watch: SolverWatch) -> dict[str, Any]:
    return {
        "epochs": result.progress.epoch,
        "steps": result.progress.step,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
        "solver_warnings": watch.warnings,
        "train": result.train,
        "val": result.val,
    }


def _show(job: Job, result: FitResult) -> None:
    """The table of results; in a sweep one line, as the sweep ends in a table of its own."""
    splits = {split: job.facts[split] for split in ("train", "val", "test") if job.facts[split]}
    if job.number is not None:
        told = "  ".join(f"{name} {value:.4g}" for name, value in splits["test"].items())
        job.screen.say(f"job {job.number} done: test {told}")
        return
    if "persistence" in job.facts:
        splits["test, persistence"] = job.facts["persistence"]["test"]
    print_results(splits)
    best = f", best at step {result.best_step}" if result.val else ""
    print(
        f"{job.facts['parameters']:,} parameters, {result.progress.epoch} epochs, "
        f"{result.progress.step} steps{best}"
    )
