"""What `idl eval` does: rebuild a run's model from its directory, load a checkpoint, evaluate."""

from __future__ import annotations

from pathlib import Path

import torch

from idl_cli.config.build_data import build_dataset, build_task, say_notes
from idl_cli.config.build_model import build_model, count_parameters
from idl_cli.config.data_options import AnyDataConfig, ArraysConfig, EvalDataConfig, TextConfig
from idl_cli.config.eval_config import EvalConfig
from idl_cli.config.sim_config import SimConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.config.typed_settings import as_plain, read_settings, read_value
from idl_cli.display.results_table import print_results
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.jobs.training.forecast import FORECAST, draw_forecast, persistence_metrics
from idl_cli.jobs.training.solver_watch import SolverWatch
from idl_cli.processes.devices import choose_device, device_name
from idl_cli.record.checkpoints import chosen_checkpoint, load_checkpoint
from idl_cli.record.config_file import recorded_config
from idl_cli.record.data_files import class_names_of, read_tokenizer
from idl_cli.record.finder import existing_run
from idl_cli.record.fingerprint import check_fit, model_of, read_fingerprint
from idl_cli.record.normalisation import as_trained
from idl_core.training import Checkpoint, Metrics, evaluate
from idl_datasets import Dataset, SeriesDataset, Split, TextSplit


def compute(job: Job) -> float:
    """Evaluate and record. Returns the loss.

    Raises: InputError where there is no such run, it is damaged, or the data do not fit its model.
    """
    config = read_settings(EvalConfig, job.request.values)
    run = existing_run(config.run)
    trained = recorded_config(run)
    checkpoint = chosen_checkpoint(run / "checkpoints", config.checkpoint, job.screen.say)
    device = choose_device(config.device, "device")
    dataset = _dataset(job, config, run, trained, checkpoint)
    precision = trained.trainer.precision
    model = build_model(model_of(trained, checkpoint), dataset)
    model = model.to(device, torch.float64 if precision == "64" else None)
    load_checkpoint(model, checkpoint, run)
    dataset = dataset.to(device)
    split = _split(dataset, config.split)

    directory = job.claim()
    directory.write_settings(as_plain(config), job.request.typed)
    task = build_task(dataset)
    batch_size = config.batch_size or trained.trainer.eval_batch_size
    with SolverWatch(job.screen.say) as watch:
        metrics = evaluate(model, split, task, batch_size, precision)
        rows: dict[str, Metrics] = {config.split: metrics}
        if isinstance(dataset, SeriesDataset):
            rows["persistence"] = persistence_metrics(dataset, split, task)
            picture, say = directory.figures / FORECAST, job.screen.say
            draw_forecast(picture, model, dataset, split, batch_size, precision, say)
    summary = job.summary
    summary.data = {"digest": dataset.digest, "notes": list(dataset.notes)}
    summary.seed, summary.solver_warnings = trained.seed, watch.warnings
    summary.device, summary.parameters = device_name(device), count_parameters(model)
    progress = checkpoint.state.get("progress", {})
    summary.epochs, summary.steps = progress.get("epoch", 0), progress.get("step", 0)
    checked = {"checkpoint": config.checkpoint, "data": dataset.name, "split": config.split}
    summary.evaluated = {"run": str(run.absolute()), **checked}
    summary.ranked_by = f"{config.split}.loss"
    setattr(summary, config.split, metrics)
    if "persistence" in rows:
        summary.persistence = {config.split: rows["persistence"]}
    if job.number is None:
        print_results(rows)
    return metrics["loss"]


def _dataset(
    job: Job,
    config: EvalConfig,
    run: Path,
    trained: TrainConfig | SimConfig,
    checkpoint: Checkpoint,
) -> Dataset:
    """The data to evaluate on, normalised and tokenised as in the training. Raises: InputError."""
    data = chosen_data(trained.data, config.data)
    # A run of a language model has its tokenizer; another text is read with that.
    tokenizer = read_tokenizer(run) if isinstance(trained.data, TextConfig) else None
    if not isinstance(data, TextConfig):
        tokenizer = None
    if isinstance(data, ArraysConfig) and data.task is None:  # not what other labels look like
        task = read_fingerprint(checkpoint)["task"]
        data = read_value(ArraysConfig, as_plain(data) | {"task": task}, "data")
    names = class_names_of(run)
    dataset = build_dataset(data, trained.seed, job.screen.loading, tokenizer, names)
    say_notes(dataset, job.screen.say)
    check_fit(dataset, checkpoint)
    return as_trained(dataset, checkpoint, job.screen.say)


def _split(dataset: Dataset, name: str) -> Split:
    split: Split | None = getattr(dataset, name)
    if split is None:
        raise InputError(f"split={name}: the run was trained with data.val_fraction=0")
    # Windows of a text that do not overlap: one at every token would take block_size times as long.
    return split.apart() if isinstance(split, TextSplit) else split


def chosen_data(trained: AnyDataConfig, typed: EvalDataConfig) -> AnyDataConfig:
    """The data of the training with the typed settings changed, or another data set.

    Raises: InputError for a setting that the data set does not have.
    """
    given = {name: value for name, value in as_plain(typed).items() if value is not None}
    if typed.name is None or typed.name == trained.name:
        given = as_plain(trained) | given
    config: AnyDataConfig = read_value(AnyDataConfig, given, "data")
    return config
