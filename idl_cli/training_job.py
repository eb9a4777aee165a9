"""What `idl train` does: build what the configuration names, fit it, evaluate it, record it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idl_cli import build
from idl_cli.devices import choose_devices, devices_name
from idl_cli.errors import InputError, RunFailed
from idl_cli.forecast import NAME as FORECAST
from idl_cli.forecast import draw_forecast, persistence_figures
from idl_cli.initial_model import load_initial, with_initial_options
from idl_cli.job import Interrupted, Job
from idl_cli.memory import is_out_of_memory, out_of_memory
from idl_cli.metrics_record import MetricsRecord
from idl_cli.ranks import Ranks, process_group
from idl_cli.results_table import print_results
from idl_cli.resume import continuation, own_words, recorded_words
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
    Figures,
    FitResult,
    NonFiniteLoss,
    Progress,
    Task,
    Team,
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
    test: Figures
    persistence: dict[str, Figures]
    solver_warnings: int

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> Outcome:
        """Out of what `asdict` made of one."""
        result = values["result"]
        progress = Progress(**result["progress"])
        return cls(**values | {"result": FitResult(**result | {"progress": progress})})


def compute(job: Job) -> float:
    """Train, evaluate and record. Returns the monitored figure.

    Raises: InputError, RunFailed (the loss became non-finite), Interrupted (a signal; saved).
    """
    begin = continuation(
        train_config(job.values), job.values, job.typed, job.output, job.number, job.cluster_job
    )
    config, old = begin.config, begin.old
    if begin.value is not None:
        job.screen.say(f"job {job.number} was complete")
        return begin.value
    if old is None:
        config = with_initial_options(config, job.typed)
    devices = choose_devices(config.trainer)
    if ranks := Ranks.of_environment():
        device = ranks.device(devices)
        parts = build_parts(config, device, job.screen.loading)
        with process_group(device, ranks) as team:
            job.facts |= _facts_before(parts, [device] * team.count)
            return _compute(job, config, old, parts, [device], team)
    here = devices[0] if len(devices) == 1 else torch.device("cpu")
    parts = build_parts(config, here, job.screen.loading)
    job.facts |= _facts_before(parts, devices)
    return _compute(job, config, old, parts, devices, Team())


def _compute(
    job: Job,
    config: TrainConfig,
    old: Path | None,
    parts: Ingredients,
    devices: list[torch.device],
    team: Team,
) -> float:
    with job.stop as stop:
        if team.rank:
            outcome = _follow(parts, stop, team)
        else:
            directory = _open_directory(job, config, parts.dataset, old, team)
            with recording(job, config, directory) as callback:
                outcome = _train(
                    job, parts, devices, callback, directory, stop, team, resume=old is not None
                )
                result = outcome.result
                job.facts |= _facts(outcome)
                if not result.interrupted:
                    job.screen.close()
                    callback.on_evaluation(result.progress, "test", outcome.test, False)
            _conclude(job, outcome, directory, stop)
    return (outcome.result.val or outcome.result.train)[config.trainer.monitor]


def _conclude(job: Job, outcome: Outcome, directory: RunDirectory, stop: StopSignals) -> None:
    """Show how it ended. Raises: Interrupted."""
    if outcome.result.interrupted:
        again = f"idl train trainer.resume={directory.shown}"
        raise Interrupted(
            f"stopped at step {outcome.result.progress.step} and saved; go on with: {again}",
            stop.exit_code,
            stop.received,
        )
    _show(job, outcome.result)
    if stop.received and job.number is not None:  # too late for this job, meant for the sweep
        raise Interrupted(
            "stopped after a job that was just complete", stop.exit_code, stop.received
        )


def _train(
    job: Job,
    parts: Ingredients,
    devices: list[torch.device],
    callback: Callbacks,
    directory: RunDirectory,
    stop: StopSignals,
    team: Team,
    *,
    resume: bool,
) -> Outcome:
    """Train in this process, or in a worker for each of several devices."""
    mark, config = fingerprint(parts.config.model, parts.dataset), parts.config
    plan: dict[str, Any] = {
        "checkpoints": str(directory.checkpoints),
        "fingerprint": mark,
        "forecast": str(directory.figures / FORECAST),
        "resume": resume,
    }
    if len(devices) > 1:
        from idl_cli.worker_pool import run_pool

        del parts  # the workers have their own
        plan |= {"config": as_plain(config)}
        return Outcome.of_plain(run_pool(plan, devices, callback, job.screen.say, stop))
    team.first(plan)
    checkpoints = CheckpointFolder(directory.checkpoints, mark)
    return train_parts(
        parts,
        callback,
        job.screen.say,
        checkpoints,
        stop,
        Path(plan["forecast"]),
        resume=resume,
        team=team,
        fitted=lambda outcome: job.facts.update(_facts(outcome)),
    )


def _follow(parts: Ingredients, stop: StopSignals, team: Team) -> Outcome:
    """Take part in the training that rank 0 records. Raises: SystemExit, Interrupted."""
    plan: dict[str, Any] = team.first({})
    if not plan:  # rank 0 was refused its directory, and says so
        raise SystemExit(2)
    checkpoints = CheckpointFolder(Path(plan["checkpoints"]), plan["fingerprint"])
    outcome = train_parts(
        parts,
        Callback(),
        lambda text: None,
        checkpoints,
        stop,
        Path(plan["forecast"]),
        resume=plan["resume"],
        team=team,
    )
    if outcome.result.interrupted:
        raise Interrupted("", stop.exit_code, stop.received)
    return outcome


def fingerprint(model: ModelConfig, dataset: Dataset) -> str:
    """What a checkpoint must share with a model to be loaded into it, as JSON."""
    facts = {
        # What solves an equilibrium does not change it: a run may go on with another.
        "model": {key: value for key, value in as_plain(model).items() if key != "kernel"},
        "task": dataset.task,
        "input_shape": list(dataset.input_shape),
        "output_dim": dataset.output_dim,
    }
    if isinstance(dataset, TextDataset):
        facts["tokenizer"] = dataset.tokenizer.state()
    return json.dumps(facts, sort_keys=True)


def build_parts(
    config: TrainConfig, device: torch.device, progress: Callable[[str, int, int | None], None]
) -> Ingredients:
    """All that a training is made of, on its device. Raises: InputError."""
    dataset = build.build_dataset(config.data, config.seed, progress)
    task = build.build_task(dataset, config.trainer.monitor)
    torch.manual_seed(config.seed)
    model = build.build_model(config.model, dataset)
    model = model.to(device, torch.float64 if config.trainer.precision == "64" else None)
    optimizer = build.build_optimizer(config.optimizer, model.parameters())
    dataset = dataset.to(device)
    if getattr(config.model, "kernel", "auto") == "triton":
        build.try_once(model, dataset)
    return Ingredients(config, dataset, model, task, optimizer)


def _facts_before(parts: Ingredients, devices: list[torch.device]) -> dict[str, Any]:
    return {
        "seed": parts.config.seed,
        "device": devices_name(devices),
        "parameters": build.count_parameters(parts.model),
        "ranked_by": f"{'val' if parts.dataset.val else 'train'}.{parts.config.trainer.monitor}",
    }


def _open_directory(
    job: Job, config: TrainConfig, dataset: Dataset, old: Path | None, team: Team
) -> RunDirectory:
    """A new run directory, or the one to go on in, with the configuration written down."""
    typed = own_words(job.typed)
    try:
        if old is None:
            directory = job.claim()
        else:
            directory = job.directory = _reopen(old, fingerprint(config.model, dataset))
            before = recorded_words(old)
            typed = [*before, *(word for word in typed if word not in before)]
        directory.write_settings(as_plain(config), typed)
        if old is None and isinstance(dataset, TextDataset):
            write_tokenizer(directory.path, dataset.tokenizer)
    except BaseException:
        team.first({})  # the other ranks wait to be told
        raise
    return directory


def _reopen(old: Path, mark: str) -> RunDirectory:
    """A run to go on with, nothing in it touched yet. Raises: InputError where it cannot be."""
    directory = RunDirectory.reopen(old)
    try:
        CheckpointFolder(directory.checkpoints, mark).load()
    except CheckpointError as error:
        directory.release()
        raise InputError(str(error)) from error
    return directory


@contextlib.contextmanager
def recording(job: Job, config: TrainConfig, directory: RunDirectory) -> Iterator[Callbacks]:
    """Everything that listens to the training."""
    metrics = MetricsRecord(directory.metrics, job.screen.say)
    members: list[Callback] = [metrics, job.screen]
    with contextlib.ExitStack() as stack:
        stack.callback(metrics.close)
        if isinstance(config.logger, WandbConfig):
            from idl_cli.wandb_record import WandbRecord

            record = WandbRecord(config, directory, job.sweep, job.screen.say)
            stack.callback(record.close)
            members.append(record)
        yield Callbacks(members)


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
        fitted: told how it stands before the test split is evaluated.

    Raises: InputError, RunFailed.
    """
    if not resume:
        load_initial(parts.model, parts.config.model, parts.dataset)
    with _explained_memory(parts), SolverWatch(say) as watch:
        result = _fit(parts, callback, watch, checkpoints, stop, resume=resume, team=team)
        outcome = Outcome(result, {}, {}, watch.warnings)
        fitted(outcome)
        if not result.interrupted:
            _evaluate_test(parts, outcome, forecast, team)
    outcome.solver_warnings = watch.warnings
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


def _evaluate_test(parts: Ingredients, outcome: Outcome, forecast: Path, team: Team) -> None:
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
        draw_forecast(forecast, parts.model, dataset, dataset.test, size, precision)


def _fit(
    parts: Ingredients,
    callback: Callback,
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
            team=team,
        )
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except NonFiniteLoss as error:
        kept = "the last good checkpoint is kept; " if checkpoints.folder.exists() else ""
        raise RunFailed(f"{error}: {kept}lower optimizer.lr or set trainer.grad_clip") from error


def _facts(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    facts = {
        "epochs": result.progress.epoch,
        "steps": result.progress.step,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
        "solver_warnings": outcome.solver_warnings,
        "train": result.train,
        "val": result.val,
        "test": outcome.test,
    }
    return facts | ({"persistence": outcome.persistence} if outcome.persistence else {})


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
