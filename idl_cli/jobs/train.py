"""What `idl train` does: build what the configuration names, fit it, evaluate it, record it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from idl_cli.config import build
from idl_cli.config.schema import TrainConfig, train_config
from idl_cli.display.results_table import print_results
from idl_cli.jobs.job import Interrupted, Job
from idl_cli.jobs.recording import open_directory, recording
from idl_cli.jobs.resume import Continuation, continuation, has_learnt
from idl_cli.jobs.training.components import Ingredients, Outcome, build_parts, checkpoint_folder
from idl_cli.jobs.training.init_from import with_initial_options
from idl_cli.jobs.training.ranks import follow, lead
from idl_cli.processes.devices import choose_devices, devices_name
from idl_cli.processes.ranks import Ranks, process_group
from idl_cli.processes.stop_signals import StopSignals
from idl_cli.record.run_directory import RunDirectory
from idl_cli.record.saved_model import resumed_checkpoint
from idl_cli.record.tokenizer_file import write_tokenizer
from idl_core.training import FitResult, Metrics, Team
from idl_datasets import Dataset, TextDataset


def compute(job: Job) -> float:
    """Train, evaluate and record. Returns the monitored figure.

    Raises: InputError, RunFailed (the loss became non-finite), Interrupted (a signal; saved).
    """
    begin = continuation(job, train_config(job.values))
    config, old = begin.config, begin.old
    if begin.value is not None:
        job.screen.say(f"job {job.number} was complete")
        return begin.value
    if old is None or not has_learnt(old):
        config = with_initial_options(config, begin.words)
        begin = replace(begin, config=config)
    devices = choose_devices(config.trainer)
    trained = None if old is None else resumed_checkpoint(old / "checkpoints")
    if ranks := Ranks.of_environment():
        device = ranks.device(devices)
        parts = build_parts(config, device, job.screen.loading, trained, job.screen.say)
        with process_group(device, ranks) as team:
            job.facts |= _facts_before(parts, [device] * team.count)
            return _compute(job, begin, parts, [device], team)
    here = devices[0] if len(devices) == 1 else torch.device("cpu")
    parts = build_parts(config, here, job.screen.loading, trained, job.screen.say)
    job.facts |= _facts_before(parts, devices)
    return _compute(job, begin, parts, devices, Team())


def _compute(
    job: Job,
    begin: Continuation[TrainConfig],
    parts: Ingredients,
    devices: list[torch.device],
    team: Team,
) -> float:
    patience = begin.config.trainer.patience
    if patience is not None and parts.dataset.val is None:
        job.screen.say(f"trainer.patience={patience} does nothing: there is no validation split")
    with job.stop as stop:
        if team.rank:
            outcome = follow(parts, stop, team)
        else:
            directory, resume = _open_directory(job, begin, parts.dataset, team)
            with recording(job, begin.config, directory) as callback:
                outcome = lead(
                    parts,
                    devices,
                    callback,
                    job.screen.say,
                    directory,
                    stop,
                    team,
                    resume=resume,
                    fitted=lambda outcome: job.facts.update(_facts(outcome)),
                )
                result = outcome.result
                job.facts |= _facts(outcome)
                if not result.interrupted:
                    job.screen.close()
                    callback.on_evaluation(result.progress, "test", outcome.test, False)
            _conclude(job, outcome, stop)
    return (outcome.result.val or outcome.result.train)[begin.config.trainer.monitor]


def _conclude(job: Job, outcome: Outcome, stop: StopSignals) -> None:
    """Show how it ended. Raises: Interrupted."""
    if outcome.result.interrupted:
        raise Interrupted(
            f"stopped at step {outcome.result.progress.step} and saved; go on with: {job.going_on}",
            stop.exit_code,
            stop.received,
        )
    _show(job, outcome.result)
    if stop.received and job.number is not None:  # too late for this job, meant for the sweep
        raise Interrupted(
            "stopped after a job that was just complete", stop.exit_code, stop.received
        )


def _facts_before(parts: Ingredients, devices: list[torch.device]) -> dict[str, Any]:
    return {
        "seed": parts.config.seed,
        "device": devices_name(devices),
        "parameters": build.count_parameters(parts.model),
        "ranked_by": f"{'val' if parts.dataset.val else 'train'}.{parts.config.trainer.monitor}",
    }


def _open_directory(
    job: Job, begin: Continuation[TrainConfig], dataset: Dataset, team: Team
) -> tuple[RunDirectory, bool]:
    """See `open_directory`; the other ranks, which wait to be told, are let go where it fails."""
    model = begin.config.model
    try:
        opened = open_directory(
            job, begin, lambda run: checkpoint_folder(run.checkpoints, model, dataset)
        )
        if isinstance(dataset, TextDataset):  # an earlier attempt may have ended before it
            write_tokenizer(opened[0].path, dataset.tokenizer)
    except BaseException:
        team.first({})
        raise
    return opened


def _facts(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    facts = {
        "epochs": result.progress.epoch,
        "steps": result.progress.step,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
        "solver_warnings": outcome.solver_warnings,
        "train": _ordered(result.train, outcome.test),
        "val": _ordered(result.val, outcome.test),
        "test": outcome.test,
    }
    return facts | ({"persistence": outcome.persistence} if outcome.persistence else {})


def _ordered(figures: Metrics, like: Metrics) -> Metrics:
    """The figures in the order of others: a checkpoint keeps them in that of the alphabet."""
    return {name: figures[name] for name in (*like, *figures) if name in figures}


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
