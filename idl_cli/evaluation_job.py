"""What `idl eval` does: rebuild a run's model from its directory, load a checkpoint, evaluate."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch

from idl_cli import build
from idl_cli.errors import InputError
from idl_cli.job import Job
from idl_cli.resume import read_config
from idl_cli.run_lookup import existing_run
from idl_cli.schema import DataConfig, EvalConfig, EvalDataConfig, as_plain
from idl_cli.solver_watch import SolverWatch
from idl_cli.tables import Column, print_table
from idl_cli.typed_settings import read_settings
from idl_core.training import (
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    evaluate,
    load_weights,
)
from idl_datasets import Dataset


def compute(job: Job) -> float:
    """Evaluate and record. Returns the loss.

    Raises: InputError where there is no such run, it is damaged, or the data do not fit its model.
    """
    config = read_settings(EvalConfig, job.values)
    run = existing_run(config.run)
    trained = read_config(run)
    checkpoint = _checkpoint(run, config)
    device = build.choose_device(config.device, "device")
    data = chosen_data(trained.data, config.data)
    dataset = build.build_dataset(data, trained.seed, job.screen.loading)
    _check_fit(dataset, checkpoint)
    precision = trained.trainer.precision
    model = build.build_model(trained.model, dataset)
    model = model.to(device, torch.float64 if precision == "64" else None)
    try:
        load_weights(model, checkpoint.tensors)
    except CheckpointError as error:
        raise InputError(f"'{run}': {error}") from error
    split = getattr(dataset.to(device), config.split)
    if split is None:
        raise InputError(f"split={config.split}: the run was trained with data.val_fraction=0")

    job.claim().write_settings(as_plain(config), job.typed)
    with SolverWatch(job.screen.say) as watch:
        figures = evaluate(model, split, build.build_task(dataset), config.batch_size, precision)
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
        columns = [Column("", [config.split])]
        columns += [Column(name, [f"{v:.4f}"], number=True) for name, v in figures.items()]
        print_table(columns)
    return figures["loss"]


def chosen_data(trained: DataConfig, typed: EvalDataConfig) -> DataConfig:
    """The data of the training with what was typed put into it, or another data set altogether."""
    given = {name: value for name, value in as_plain(typed).items() if value is not None}
    if typed.name is None or typed.name == trained.name:
        return dataclasses.replace(trained, **given)
    return DataConfig(**given)


def _checkpoint(run: Path, config: EvalConfig) -> Checkpoint:
    """The checkpoint that was asked for. Raises: InputError where it is absent or damaged."""
    folder = CheckpointFolder(run / "checkpoints")
    try:
        if config.checkpoint == "best":
            return folder.load_best()
        last, _, _ = folder.load()
    except CheckpointError as error:
        raise InputError(str(error)) from error
    if last is None:
        raise InputError(f"no checkpoint in '{folder.folder}'")
    return last


def _check_fit(dataset: Dataset, checkpoint: Checkpoint) -> None:
    """Raise InputError where the data differ in shape or kind from those of the training."""
    try:
        trained: dict[str, Any] = json.loads(checkpoint.state["fingerprint"])
        size, outputs = math.prod(trained["input_shape"]), int(trained["output_dim"])
        task = str(trained["task"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the checkpoint does not say what model it belongs to") from error
    here = (math.prod(dataset.input_shape), dataset.output_dim, dataset.task)
    if here != (size, outputs, task):
        raise InputError(
            f"data={dataset.name} does not fit: it is {here[2]} of {here[0]} values a sample and "
            f"{here[1]} outputs; the run was trained for {task} of {size} and {outputs}"
        )
