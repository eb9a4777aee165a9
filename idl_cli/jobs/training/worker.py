"""The process of one device: started by `worker_pool`, it trains its share and tells of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idl_cli.errors import InputError, RunFailed
from idl_cli.processes.worker_channel import Channel, Telling


def main(argument: str) -> None:
    """Train by the description in `<argument>/job.json`."""
    folder = Path(argument)
    channel = Channel(folder / "events")
    channel.send("pid", pid=os.getpid())
    try:
        _train(folder, channel)
    except (InputError, RunFailed) as error:
        channel.fail(error)
        raise


def _train(folder: Path, channel: Channel) -> None:
    import torch

    from idl_cli.config.schema import train_config
    from idl_cli.jobs.training.components import build_parts, checkpoint_folder, train_parts
    from idl_cli.processes.ranks import process_group
    from idl_cli.processes.stop_signals import StopSignals
    from idl_cli.record.saved_model import resumed_checkpoint
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
        parts = build_parts(config, device, lambda what, done, total: None, trained)
        say: Callable[[str], None] = channel.say if team.rank == 0 else lambda text: None
        outcome = train_parts(
            parts,
            Telling(channel) if team.rank == 0 else Callback(),
            say,
            checkpoint_folder(checkpoints, config.model, parts.dataset),
            lambda: stop() or (team.rank == 0 and asked.exists()),
            Path(job["forecast"]),
            resume=job["resume"],
            team=team,
        )
        if team.rank == 0:
            channel.send("outcome", outcome=asdict(outcome))
