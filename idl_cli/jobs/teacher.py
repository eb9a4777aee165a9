"""The teacher: the network whose states `idl sim` learns from, trained here or an earlier run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from idl_cli.config.data_options import ArraysConfig, DataConfig
from idl_cli.config.model_options import CNNConfig, MLPConfig
from idl_cli.config.sim_config import RunConfig, SimConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.jobs.resume import Continuation
from idl_cli.jobs.training.fit_and_test import TrainingContext, fit_and_test
from idl_cli.jobs.training.setup import TrainingSetup, set_up_training
from idl_cli.processes.devices import choose_devices
from idl_cli.processes.stop_signals import Interrupted, StopSignals
from idl_cli.record.checkpoints import (
    checkpoint_folder,
    chosen_checkpoint,
    load_checkpoint,
    resumed_checkpoint,
)
from idl_cli.record.config_file import recorded_config
from idl_cli.record.data_files import class_names_of
from idl_cli.record.finder import existing_run
from idl_cli.record.run_directory import RunDirectory
from idl_core.training import Callback, CheckpointFolder, Metrics, evaluate


@dataclass
class Teacher:
    """The teacher on its device.

    Attributes:
        config: what it is.
        setup: its data and task; its model is `network`.
        trained_in: folder of its run; None where it is yet to be trained.
    """

    config: MLPConfig | CNNConfig
    setup: TrainingSetup
    trained_in: Path | None

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self.setup.model


def find_teacher(
    job: Job, begin: Continuation[SimConfig]
) -> tuple[Continuation[SimConfig], Teacher]:
    """Build the teacher of the configuration, and load its weights if it is an earlier run.

    Returns: the configuration too, with the teacher's run as it is found from anywhere, and with
        its data where none were typed.
    Raises: InputError where there is no such run, or its model has no states or is for other data.
    """
    config, screen = begin.config, job.screen
    devices = choose_devices(config.trainer)
    if len(devices) > 1:
        raise InputError(
            f"trainer.devices={config.trainer.devices}: a teacher is trained on one device; "
            "solver=admm_multigpu shares the solve among several"
        )
    if not isinstance(config.teacher, RunConfig):
        trained = None if begin.old is None else resumed_checkpoint(begin.old / "teacher")
        training = _training(config, config.teacher)
        names = None if begin.old is None or trained is None else class_names_of(begin.old)
        setup = set_up_training(training, devices[0], screen.loading, trained, screen.say, names)
        chosen = dataclasses.replace(config, optimizer=setup.config.optimizer)
        begin = dataclasses.replace(begin, config=chosen)
        return begin, Teacher(config.teacher, setup, None)
    run = existing_run(config.teacher.run, key="teacher=")
    recorded = recorded_config(run)
    model = recorded.teacher if isinstance(recorded, SimConfig) else recorded.model
    if isinstance(model, RunConfig):
        raise InputError(f"teacher={run}: its own teacher is '{model.run}': give that one")
    if not isinstance(model, MLPConfig | CNNConfig):
        raise InputError(
            f"teacher={run} is a run of model={model.name}, which has no layers to learn from: "
            "choose one of model=mlp or model=cnn"
        )
    config = dataclasses.replace(config, teacher=RunConfig(str(run.absolute())))
    if not _typed_data(begin.words):
        if not isinstance(recorded.data, DataConfig | ArraysConfig):
            raise InputError(
                f"teacher={run} was trained on data={recorded.data.name}, which idl sim does not "
                "read: choose a run on pictures or arrays"
            )
        config = dataclasses.replace(config, data=recorded.data)
    folder = run / ("teacher" if isinstance(recorded, SimConfig) else "checkpoints")
    checkpoint, training = chosen_checkpoint(folder, "best"), _training(config, model)
    names = class_names_of(run)
    setup = set_up_training(training, devices[0], screen.loading, checkpoint, screen.say, names)
    load_checkpoint(setup.model, checkpoint, run)
    return dataclasses.replace(begin, config=config), Teacher(model, setup, run)


def teacher_checkpoints(teacher: Teacher, directory: RunDirectory) -> CheckpointFolder | None:
    """The checkpoints of its training in this run; None where it is an earlier run."""
    if teacher.trained_in is not None:
        return None
    return checkpoint_folder(directory.teacher, teacher.config, teacher.setup.dataset)


def train_teacher(
    job: Job,
    teacher: Teacher,
    callback: Callback,
    stop: StopSignals,
    directory: RunDirectory,
    resume: bool,
) -> Metrics:
    """Train it, unless it is trained already. Returns: its metrics on the test split.

    Raises: InputError, RunFailed, Interrupted.
    """
    setup = teacher.setup
    checkpoints = teacher_checkpoints(teacher, directory)
    if checkpoints is None:
        trainer = setup.config.trainer
        return evaluate(
            setup.model,
            setup.dataset.test,
            setup.task,
            trainer.eval_batch_size,
            trainer.precision,
        )
    context = TrainingContext(
        callback=callback,
        say=job.screen.say,
        stop=stop,
        checkpoints=checkpoints,
        forecast=directory.figures / "unused",  # only series have a forecast to draw
        resume=resume,
    )
    outcome = fit_and_test(setup, context)
    result, summary = outcome.result, job.summary
    summary.epochs, summary.steps = result.progress.epoch, result.progress.step
    summary.train, summary.val = result.train, result.val
    if result.interrupted:
        raise Interrupted(
            f"stopped at step {result.progress.step} of the teacher's training, and saved; "
            f"go on with: {job.resume_command}",
            stop.exit_code,
            stop.received,
        )
    return outcome.test


def _training(config: SimConfig, model: MLPConfig | CNNConfig) -> TrainConfig:
    """The training of a teacher as `idl train` would have it."""
    return TrainConfig(
        name=config.name,
        model=model,
        data=config.data,
        optimizer=config.optimizer,
        scheduler=config.scheduler,
        trainer=config.trainer,
        logger=config.logger,
        seed=config.seed,
        debug=config.debug,
    )


def _typed_data(typed: Sequence[str]) -> bool:
    return any(word.lstrip("+").startswith(("data=", "data.")) for word in typed)
