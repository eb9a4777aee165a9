"""What `idl train` does: build what the configuration names, fit it, evaluate it, record it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from idl_cli.config.build_model import count_parameters
from idl_cli.config.train_config import TrainConfig, train_config
from idl_cli.display.results_table import print_results
from idl_cli.jobs.job import Job
from idl_cli.jobs.recording import open_directory, recording
from idl_cli.jobs.resume import Continuation, continuation, has_learnt
from idl_cli.jobs.training.fit_and_test import TrainingContext, TrainingOutcome, fit_and_test
from idl_cli.jobs.training.forecast import FORECAST
from idl_cli.jobs.training.init_from import with_initial_options
from idl_cli.jobs.training.setup import TrainingSetup, set_up_training
from idl_cli.jobs.training.several_processes import (
    SharedPlaces,
    train_as_rank,
    train_with_workers,
)
from idl_cli.processes.devices import choose_devices, devices_name, workers_note
from idl_cli.processes.ranks import JoinedRanks, Ranks, join_ranks
from idl_cli.processes.stop_signals import Interrupted, StopSignals
from idl_cli.record.checkpoints import checkpoint_folder, resumed_checkpoint
from idl_cli.record.data_files import class_names_of
from idl_cli.record.run_directory import RunDirectory
from idl_cli.record.summary import RunSummary
from idl_cli.typed_words import typed_word
from idl_core.training import Callbacks, CheckpointFolder, FitResult, Metrics

_RUNNING = "train (running)"  # not of the weights that the other rows are of


def compute(job: Job) -> float:
    """Train, evaluate and record. Returns the monitored metric.

    Raises: InputError, RunFailed (the loss became non-finite), Interrupted (a signal; saved).
    """
    begin = continuation(job.request, train_config(job.request.values))
    config, old = begin.config, begin.old
    if begin.value is not None:
        job.screen.say(f"job {job.number} was complete")
        return begin.value
    if old is None or not has_learnt(old):
        config = with_initial_options(config, begin.words)
        begin = replace(begin, config=config)
    devices = choose_devices(config.trainer)
    ranks = Ranks.of_environment()
    if ranks is not None:
        here = ranks.device(devices)
        devices = [here] * ranks.count
    else:
        here = devices[0] if len(devices) == 1 else torch.device("cpu")
        if note := workers_note(devices):
            job.screen.say(note)
    trained = None if old is None else resumed_checkpoint(old / "checkpoints")
    names = None if old is None or trained is None else class_names_of(old)
    setup = set_up_training(config, here, job.screen.loading, trained, job.screen.say, names)
    begin = replace(begin, config=setup.config)
    job.summary.seed = config.seed
    job.summary.device = devices_name(devices)
    job.summary.parameters = count_parameters(setup.model)
    split = "val" if setup.dataset.val else "train"
    job.summary.ranked_by = f"{split}.{config.trainer.monitor}"
    if config.trainer.patience is not None and setup.dataset.val is None:
        patience = config.trainer.patience
        job.screen.say(f"trainer.patience={patience} does nothing: there is no validation split")
    with join_ranks(here, ranks) as joined, job.stop as stop:
        if joined is not None and joined.rank:
            outcome = train_as_rank(setup, joined, stop)
        else:
            outcome = _train(job, begin, setup, devices, stop, joined)
            _conclude(job, outcome, stop)
    return (outcome.result.val or outcome.result.train)[config.trainer.monitor]


def _train(
    job: Job,
    begin: Continuation[TrainConfig],
    setup: TrainingSetup,
    devices: list[torch.device],
    stop: StopSignals,
    ranks: JoinedRanks | None,
) -> TrainingOutcome:
    """Train in the run directory, with workers or ranks if there are any, and record it."""
    with _training(job, begin, setup, stop) as (context, callbacks):
        if ranks is not None:
            ranks.give(SharedPlaces.of(context))
            context.team = ranks.team
        if ranks is None and len(devices) > 1:
            outcome = train_with_workers(setup, devices, context)
        else:
            outcome = fit_and_test(setup, context)
        _summarise(job.summary, outcome)
        if not outcome.result.interrupted:
            job.screen.close()
            callbacks.on_evaluation(outcome.result.progress, "test", outcome.test, False)
    return outcome


@contextlib.contextmanager
def _training(
    job: Job, begin: Continuation[TrainConfig], setup: TrainingSetup, stop: StopSignals
) -> Iterator[tuple[TrainingContext, Callbacks]]:
    """Open the run directory and the loggers of the training."""
    model, dataset = begin.config.model, setup.dataset

    def checkpoints(run: RunDirectory) -> CheckpointFolder:
        return checkpoint_folder(run.checkpoints, model, dataset)

    directory, resume = open_directory(job, begin, setup, checkpoints)
    with recording(job, begin.config, directory) as callbacks:
        context = TrainingContext(
            callback=callbacks,
            say=job.screen.say,
            stop=stop,
            checkpoints=checkpoints(directory),
            forecast=directory.figures / FORECAST,
            resume=resume,
            on_fitted=lambda outcome: _summarise(job.summary, outcome),
        )
        yield context, callbacks


def _conclude(job: Job, outcome: TrainingOutcome, stop: StopSignals) -> None:
    """Show how it ended. Raises: Interrupted."""
    if outcome.result.interrupted:
        raise Interrupted(
            f"stopped at step {outcome.result.progress.step} and saved; go on with: "
            f"{job.resume_command}",
            stop.exit_code,
            stop.received,
        )
    _show(job, outcome.result)
    job.stop_sweep(stop)


def _summarise(summary: RunSummary, outcome: TrainingOutcome) -> None:
    result = outcome.result
    summary.epochs, summary.steps = result.progress.epoch, result.progress.step
    summary.best_step, summary.stopped_early = result.best_step, result.stopped_early
    summary.solver_warnings = outcome.solver_warnings
    summary.train = _ordered(result.train, outcome.test)
    summary.val = _ordered(result.val, outcome.test)
    summary.test = outcome.test
    summary.train_is = "the mean over the last epoch, while the weights changed"
    summary.persistence = outcome.persistence or None


def _ordered(metrics: Metrics, like: Metrics) -> Metrics:
    """Sort metrics like others: a checkpoint keeps them in alphabetical order."""
    return {name: metrics[name] for name in (*like, *metrics) if name in metrics}


def _show(job: Job, result: FitResult) -> None:
    """Print the table of results; in a sweep one line, as the sweep ends in its own table."""
    summary = job.summary
    assert job.directory is not None
    if job.number is not None:
        job.say_test_metrics()
        return
    rows = {_RUNNING: summary.train, "val": summary.val, "test": summary.test}
    rows = {split: metrics for split, metrics in rows.items() if metrics}
    if summary.persistence is not None:
        rows["test, persistence"] = summary.persistence["test"]
    print_results(rows)
    best = f", best at step {result.best_step}" if result.val else ""
    of_these = f"idl eval {typed_word('run', job.directory.shown)} split=train"
    print(f"{_RUNNING}: the mean over the last epoch, as the weights changed; now: {of_these}")
    print(
        f"{summary.parameters:,} parameters, {result.progress.epoch} epochs, "
        f"{result.progress.step} steps{best}"
    )
