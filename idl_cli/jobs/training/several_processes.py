"""A training by several processes: workers that are started here, or ranks of torchrun or srun."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from idl_cli.config.typed_settings import as_plain
from idl_cli.jobs.training.fit_and_test import TrainingContext, TrainingOutcome, fit_and_test
from idl_cli.jobs.training.setup import TrainingSetup
from idl_cli.processes.ranks import JoinedRanks
from idl_cli.processes.stop_signals import Interrupted, StopSignals
from idl_cli.processes.worker_pool import run_pool
from idl_cli.record.checkpoints import checkpoint_folder
from idl_core.training import Callback

WORKER = "idl_cli.jobs.training.worker"


@dataclass(frozen=True)
class SharedPlaces:
    """The places in the run directory, which rank 0 opened, where every process saves."""

    checkpoints: str
    forecast: str
    resume: bool

    @classmethod
    def of(cls, context: TrainingContext) -> SharedPlaces:
        """Those of a context."""
        return cls(str(context.checkpoints.folder), str(context.forecast), context.resume)


def train_with_workers(
    setup: TrainingSetup, devices: list[torch.device], context: TrainingContext
) -> TrainingOutcome:
    """Train in a worker for each device; this process has the screen and the record.

    Raises: InputError, RunFailed.
    """
    job = asdict(SharedPlaces.of(context)) | {"config": as_plain(setup.config)}
    outcome = run_pool(WORKER, job, devices, context.callback, context.say, context.stop)
    return TrainingOutcome.of_plain(outcome)


def train_as_rank(setup: TrainingSetup, ranks: JoinedRanks, stop: StopSignals) -> TrainingOutcome:
    """Take part in the training that rank 0 records. Raises: SystemExit, RunFailed, Interrupted."""
    places = ranks.receive()
    if not isinstance(places, SharedPlaces):  # rank 0 was refused its directory, and says so
        raise SystemExit(2)
    folder = Path(places.checkpoints)
    context = TrainingContext(
        callback=Callback(),
        say=lambda text: None,
        stop=stop,
        checkpoints=checkpoint_folder(folder, setup.config.model, setup.dataset),
        forecast=Path(places.forecast),
        resume=places.resume,
        team=ranks.team,
    )
    outcome = fit_and_test(setup, context)
    if outcome.result.interrupted:
        raise Interrupted("", stop.exit_code, stop.received)
    return outcome
