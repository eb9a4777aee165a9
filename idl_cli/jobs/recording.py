"""Opening a job's run directory, new or to be resumed, and its loggers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from idl_cli.config.train_config import TrainConfig
from idl_cli.config.training_options import WandbConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.errors import InputError
from idl_cli.jobs.earlier_record import (
    EarlierRecord,
    begin_anew,
    rate_change,
    refuse_fewer_steps,
)
from idl_cli.jobs.job import Job
from idl_cli.jobs.resume import Continuation
from idl_cli.jobs.training.setup import TrainingSetup
from idl_cli.record.config_file import Config
from idl_cli.record.data_files import check_same_data, write_data
from idl_cli.record.loggers.metrics_file import MetricsLogger
from idl_cli.record.loggers.summary_logger import SummaryLogger
from idl_cli.record.run_directory import RunDirectory, cannot_write
from idl_core.training import Callback, Callbacks, CheckpointError, CheckpointFolder


def open_directory(
    job: Job,
    begin: Continuation[Config],
    setup: TrainingSetup,
    checkpoints: Callable[[RunDirectory], CheckpointFolder | None],
) -> tuple[RunDirectory, bool]:
    """Open a new run directory or the one to resume, and write the configuration into it.

    Args:
        setup: what is to be trained. To be resumed, its data must be what they were.
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
            resume = _can_resume(job, begin, setup, directory, checkpoints(directory))
        except (CheckpointError, InputError) as error:
            directory.release()
            raise InputError(str(error)) from error
        job.directory, job.earlier = directory, EarlierRecord.of(directory)
    dataset = setup.dataset
    directory.write_settings(as_plain(begin.config), begin.words)
    try:
        write_data(directory.path, dataset)
    except OSError as error:
        raise cannot_write(directory.path, error) from error
    job.summary.data = {"digest": dataset.digest, "notes": list(dataset.notes)}
    return directory, resume


def _can_resume(
    job: Job,
    begin: Continuation[Config],
    setup: TrainingSetup,
    directory: RunDirectory,
    folder: CheckpointFolder | None,
) -> bool:
    """Whether there is a checkpoint to go on from. Says what the user may not expect.

    Raises: CheckpointError, and InputError where going on would lose something.
    """
    if folder is None:
        return False
    last = folder.load()[0]
    if last is None:
        job.screen.say(begin_anew(directory))
        return False
    check_same_data(directory.path, setup.dataset)
    done = last.step or 0
    refuse_fewer_steps(setup, done)
    if begin.before is not None and (said := rate_change(begin.before, setup, done)):
        job.screen.say(said)
    return True


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
