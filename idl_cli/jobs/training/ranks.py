"""A training shared by ranks: workers started here, or processes that were there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from idl_cli.config.schema import as_plain
from idl_cli.jobs.job import Interrupted
from idl_cli.jobs.training.components import Ingredients, Outcome, checkpoint_folder, train_parts
from idl_cli.jobs.training.forecast import NAME as FORECAST
from idl_cli.processes.stop_signals import StopSignals
from idl_cli.record.run_directory import RunDirectory
from idl_core.training import Callback, Callbacks, Team


def lead(
    parts: Ingredients,
    devices: list[torch.device],
    callback: Callbacks,
    say: Callable[[str], None],
    directory: RunDirectory,
    stop: StopSignals,
    team: Team,
    *,
    resume: bool,
    fitted: Callable[[Outcome], None],
) -> Outcome:
    """Train in this process, the first of a team, or in a worker for each of several devices.

    Args:
        fitted: told how it stands before the test split is evaluated; workers do not tell that.

    Raises: InputError, RunFailed.
    """
    config = parts.config
    plan: dict[str, Any] = {
        "checkpoints": str(directory.checkpoints),
        "forecast": str(directory.figures / FORECAST),
        "resume": resume,
    }
    if len(devices) > 1:
        from idl_cli.processes.worker_pool import run_pool

        plan |= {"config": as_plain(config)}
        return Outcome.of_plain(run_pool(plan, devices, callback, say, stop))
    team.first(plan)
    checkpoints = checkpoint_folder(directory.checkpoints, config.model, parts.dataset)
    forecast = Path(plan["forecast"])
    return train_parts(
        parts, callback, say, checkpoints, stop, forecast, resume=resume, team=team, fitted=fitted
    )


def follow(parts: Ingredients, stop: StopSignals, team: Team) -> Outcome:
    """Take part in the training that rank 0 records. Raises: SystemExit, Interrupted."""
    plan: dict[str, Any] = team.first({})
    if not plan:  # rank 0 was refused its directory, and says so
        raise SystemExit(2)
    checkpoints = checkpoint_folder(Path(plan["checkpoints"]), parts.config.model, parts.dataset)
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
