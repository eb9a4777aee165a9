"""Opening a job's run directory, new or to be resumed, and its loggers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from idl_cli.config.train_config import TrainConfig
from idl_cli.config.training_options import WandbConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.jobs.resume import Continuation
from idl_cli.record.config_file import Config
from idl_cli.record.data_files import check_same_data, write_data
from idl_cli.record.loggers.metrics_file import MetricsLogger
from idl_cli.record.loggers.summary_logger import SummaryLogger
from idl_cli.record.run_directory import RunDirectory, cannot_write
from idl_core.training import Callback, Callbacks, CheckpointError, CheckpointFolder
from idl_datasets import Dataset


def open_directory(
    job: Job,
    begin: Continuation[Config],
    dataset: Dataset,
    checkpoints: Callable[[RunDirectory], CheckpointFolder | None],
) -> tuple[RunDirectory, bool]:
    """Open a new run directory or the one to resume, and write the configuration into it.

    Args:
        dataset: what the run is trained on; to be resumed it must be what it was.
        checkpoints: of what is trained in a directory; None where nothing is.

    Returns: it, and whether there is a checkpoint to go on from.
    Raises: InputError where it is in use, or cannot be resumed; nothing in it is touched then.
    """
    resume = False
    if begin.old is None:
        directory = job.claim()
    else:
        directory = RunDirectory.reopen(begin.old)
        try:
            folder = checkpoints(directory)
            resume = folder is not None and folder.load()[0] is not None
            if resume:
                check_same_data(begin.old, dataset)
            if folder is not None and not resume:
                job.screen.say(f"{directory.shown} has no checkpoint yet: it begins anew")
        except (CheckpointError, InputError) as error:
            directory.release()
            raise InputError(str(error)) from error
        job.directory = directory
    directory.write_settings(as_plain(begin.config), begin.words)
    try:
        write_data(directory.path, dataset)
    except OSError as error:
        raise cannot_write(directory.path, error) from error
    job.summary.data = {"digest": dataset.digest, "notes": list(dataset.notes)}
    return directory, resume


@contextlib.contextmanager
def recording(job: Job, config: TrainConfig, directory: RunDirectory) -> Iterator[Callbacks]:
    """The callbacks of a training: the screen, and every logger that the configuration names."""
    # What an earlier process wrote of its end holds no longer: until this one ends, none is known.
    directory.summary.unlink(missing_ok=True)
    metrics = MetricsLogger(directory.metrics, job.screen.say)
    members: list[Callback] = [metrics, SummaryLogger(job.summary), job.screen]
    with contextlib.ExitStack() as stack:
        stack.callback(metrics.close)
        if isinstance(config.logger, WandbConfig):
            from idl_cli.record.loggers.wandb_logger import WandbLogger

            wandb = WandbLogger(config, directory, job.request.sweep, job.screen.say)
            stack.callback(wandb.close)
            members.append(wandb)
        yield Callbacks(members)
