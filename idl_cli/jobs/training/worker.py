"""A worker of `train_with_workers`: the process that trains on one device."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idl_cli.errors import InputError, RunFailed
from idl_cli.processes.worker_channel import SendingCallback, WorkerChannel
from idl_cli.safe_streams import make_streams_safe


def main(argument: str) -> None:
    """Train by the description in `<argument>/job.json`."""
    make_streams_safe()
    folder = Path(argument)
    channel = WorkerChannel(folder / "events")
    channel.send("pid", pid=os.getpid())
    try:
        _train(folder, channel)
    except (InputError, RunFailed) as error:
        channel.fail(error)
        raise


def _train(folder: Path, channel: WorkerChannel) -> None:
    # Imported here: the parent is to know the process id, to end it by, before anything slow.
    import torch

    from idl_cli.config.train_config import train_config
    from idl_cli.jobs.training.fit_and_test import TrainingContext, fit_and_test
    from idl_cli.jobs.training.setup import set_up_training
    from idl_cli.processes.ranks import process_group
    from idl_cli.processes.stop_signals import StopSignals
    from idl_cli.record.checkpoints import checkpoint_folder, resumed_checkpoint
    from idl_cli.record.data_files import class_names_of
    from idl_core.training import Callback

    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    device = torch.device(job["devices"][int(os.environ["LOCAL_RANK"])])
    config = train_config(job["config"])
    asked = folder / "stop"
    with process_group(device) as team, StopSignals() as stop:
        checkpoints = Path(job["checkpoints"])
        trained = resumed_checkpoint(checkpoints) if job["resume"] else None
        names = class_names_of(checkpoints.parent) if trained else None
        setup = set_up_training(
            config, device, lambda what, done, total: None, trained, class_names=names
        )
        first = team.rank == 0
        context = TrainingContext(
            callback=SendingCallback(channel) if first else Callback(),
            say=channel.say if first else lambda text: None,
            stop=lambda: stop() or (first and asked.exists()),
            checkpoints=checkpoint_folder(checkpoints, config.model, setup.dataset),
            forecast=Path(job["forecast"]),
            resume=job["resume"],
            team=team,
        )
        outcome = fit_and_test(setup, context)
        if first:
            channel.send("outcome", outcome=asdict(outcome))
