"""The run directory of a job, new or gone on with, and what writes into it while it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from idl_cli.config.schema import TrainConfig, WandbConfig, as_plain
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.jobs.resume import Continuation
from idl_cli.record.config_file import Config
from idl_cli.record.loggers.metrics_file import FactsRecord, MetricsRecord
from idl_cli.record.run_directory import RunDirectory
from idl_core.training import Callback, Callbacks, CheckpointError, CheckpointFolder


def open_directory(
    job: Job,
    begin: Continuation[Config],
    checkpoints: Callable[[RunDirectory], CheckpointFolder | None],
) -> tuple[RunDirectory, bool]:
    """A new run directory, or the one to go on in, with the configuration written down.

    Args:
        checkpoints: those of what is trained in a directory, if anything is.

    Returns: it, and whether there is a checkpoint to go on from.
    Raises: InputError where it cannot be had or gone on with; nothing in it is touched then.
    """
    resume = False
    if begin.old is None:
        directory = job.claim()
    else:
        directory = RunDirectory.reopen(begin.old)
        try:
            folder = checkpoints(directory)
            resume = folder is not None and folder.load()[0] is not None
            if folder is not None and not resume:
                job.screen.say(f"{directory.shown} has no checkpoint yet: it begins anew")
        except CheckpointError as error:
            directory.release()
            raise InputError(str(error)) from error
        job.directory = directory
    directory.write_settings(as_plain(begin.config), begin.words)
    return directory, resume


@contextlib.contextmanager
def recording(job: Job, config: TrainConfig, directory: RunDirectory) -> Iterator[Callbacks]:
    """Everything that listens to the training."""
    # What an earlier process wrote of its end holds no longer: until this one ends, none is known.
    directory.summary.unlink(missing_ok=True)
    metrics = MetricsRecord(directory.metrics, job.screen.say)
    members: list[Callback] = [metrics, FactsRecord(job.facts), job.screen]
    with contextlib.ExitStack() as stack:
        stack.callback(metrics.close)
        if isinstance(config.logger, WandbConfig):
            from idl_cli.record.loggers.wandb_logger import WandbRecord

            record = WandbRecord(config, directory, job.sweep, job.screen.say)
            stack.callback(record.close)
            members.append(record)
        yield Callbacks(members)
