"""What `idl eval` does: rebuild a run's model from its directory, load a checkpoint, evaluate."""

from __future__ import annotations

import torch

from idl_cli.config import build
from idl_cli.config.schema import AnyDataConfig, EvalConfig, EvalDataConfig, TextConfig, as_plain
from idl_cli.config.typed_settings import read_settings, read_value
from idl_cli.display.results_table import print_results
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.jobs.training.forecast import NAME as FORECAST
from idl_cli.jobs.training.forecast import draw_forecast, persistence_figures
from idl_cli.jobs.training.solver_watch import SolverWatch
from idl_cli.record.config_file import check_fit, model_of, read_recorded
from idl_cli.record.finder import existing_run
from idl_cli.record.normalisation import as_trained
from idl_cli.record.saved_model import load_trained, read_trained
from idl_cli.record.tokenizer_file import read_tokenizer
from idl_core.training import Metrics, evaluate
from idl_datasets import SeriesDataset, TextSplit


def compute(job: Job) -> float:
    """Evaluate and record. Returns the loss.

    Raises: InputError where there is no such run, it is damaged, or the data do not fit its model.
    """
    config = read_settings(EvalConfig, job.values)
    run = existing_run(config.run)
    trained = read_recorded(run)
    checkpoint = read_trained(run / "checkpoints", config.checkpoint, job.screen.say)
    device = build.choose_device(config.device, "device")
    data = chosen_data(trained.data, config.data)
    # Another text is read with the characters that the model knows.
    tokenizer = read_tokenizer(run) if isinstance(trained.data, TextConfig) else None
    is_text = isinstance(data, TextConfig)
    dataset = build.build_dataset(
        data, trained.seed, job.screen.loading, tokenizer if is_text else None
    )
    check_fit(dataset, checkpoint)
    dataset = as_trained(dataset, checkpoint, job.screen.say)
    precision = trained.trainer.precision
    model = build.build_model(model_of(trained, checkpoint), dataset)
    model = model.to(device, torch.float64 if precision == "64" else None)
    load_trained(model, checkpoint, run)
    dataset = dataset.to(device)
    split = getattr(dataset, config.split)
    if split is None:
        raise InputError(f"split={config.split}: the run was trained with data.val_fraction=0")
    if isinstance(split, TextSplit):  # a window at every token of train would take block_size times
        split = split.apart()

    directory = job.claim()
    directory.write_settings(as_plain(config), job.typed)
    task = build.build_task(dataset)
    batch_size = config.batch_size or trained.trainer.eval_batch_size
    with SolverWatch(job.screen.say) as watch:
        figures = evaluate(model, split, task, batch_size, precision)
        rows: dict[str, Metrics] = {config.split: figures}
        if isinstance(dataset, SeriesDataset):
            rows["persistence"] = persistence_figures(dataset, split, task)
            job.facts["persistence"] = {config.split: rows["persistence"]}
            drawn = directory.figures / FORECAST
            say = job.screen.say
            draw_forecast(drawn, model, dataset, split, batch_size, precision, say)
    progress = checkpoint.state.get("progress", {})
    job.facts |= {
        "seed": trained.seed,
        "device": build.device_name(device),
        "parameters": build.count_parameters(model),
        "epochs": progress.get("epoch", 0),
        "steps": progress.get("step", 0),
        "evaluated": {
            "run": str(run.absolute()),
            "checkpoint": config.checkpoint,
            "data": dataset.name,
            "split": config.split,
        },
        "ranked_by": f"{config.split}.loss",
        "solver_warnings": watch.warnings,
        config.split: figures,
    }
    if job.number is None:
        print_results(rows)
    return figures["loss"]


def chosen_data(trained: AnyDataConfig, typed: EvalDataConfig) -> AnyDataConfig:
    """The data of the training with what was typed put into it, or another data set altogether.

    Raises: InputError for a setting that the data set does not have.
    """
    given = {name: value for name, value in as_plain(typed).items() if value is not None}
    if typed.name is None or typed.name == trained.name:
        given = as_plain(trained) | given
    config: AnyDataConfig = read_value(AnyDataConfig, given, "data")
    return config
