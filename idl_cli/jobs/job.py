"""One job of a command that computes: its run directory, its summary, its exit code."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from idl_cli.display.screen import Screen, SilentScreen, make_screen
from idl_cli.errors import InputError, RunFailed
from idl_cli.hydra_app.hydra_command import is_sweep_job, plain_values, report_error, report_failure
from idl_cli.hydra_app.plugins import is_pool
from idl_cli.hydra_app.sweep import note_refusal
from idl_cli.processes.ranks import Ranks
from idl_cli.processes.stop_signals import PoolStop, StopSignals, pass_on
from idl_cli.record.run_directory import RunDirectory
from idl_cli.typed_words import typed_word

_PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "safetensors")


class Interrupted(Exception):
    """A signal ended the computation, which was saved before."""

    def __init__(self, message: str, exit_code: int, signal: int | None = None) -> None:
        super().__init__(message)
        self.exit_code, self.signal = exit_code, signal


@dataclass
class Job:
    """What a command has to work with.

    Attributes:
        values: the composed configuration as plain values.
        typed: what was typed, as `key=value`.
        output: where the run directory is to be.
        output_chosen: the user named it.
        number, sweep: the number of a sweep's job and the sweep's folder; None in a single run.
        cluster_job: what submitit calls it; None where it is no job of submitit's.
        stop: true once a signal asked to stop; the job enters it where it can save.
        facts: entries of summary.json, filled in as they become known.
        git_commit: of the folder that the command was started in, when it was.
    """

    command: str
    values: dict[str, Any]
    typed: list[str]
    output: Path
    output_chosen: bool
    number: int | None
    sweep: Path | None
    screen: Screen
    cluster_job: str | None = None
    stop: StopSignals = field(default_factory=StopSignals)
    directory: RunDirectory | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    git_commit: str | None = field(default_factory=lambda: _git_commit())
    began: float = field(default_factory=time.monotonic)
    started: datetime = field(default_factory=datetime.now)

    @classmethod
    def of(cls, command: str, config: DictConfig) -> Job:
        """The job that Hydra is running."""
        hydra = HydraConfig.get()
        in_sweep = is_sweep_job()
        pooled = in_sweep and is_pool(hydra.launcher)
        hydra_words = list(hydra.overrides.hydra)
        number = int(hydra.job.num) if in_sweep else None
        ranks = Ranks.of_environment()
        return cls(
            command=command,
            values=plain_values(config),
            typed=[str(word) for word in OmegaConf.to_container(hydra.overrides.task) or ()],
            output=Path(hydra.runtime.output_dir),
            output_chosen=in_sweep or any(w.startswith("hydra.run.dir=") for w in hydra_words),
            number=number,
            sweep=Path(hydra.sweep.dir) if in_sweep else None,
            screen=SilentScreen(number) if ranks and ranks.rank else make_screen(number),
            cluster_job=str(hydra.job.id) if "SUBMITIT_FOLDER" in os.environ else None,
            stop=PoolStop(Path(hydra.sweep.dir)) if pooled else StopSignals(),
        )

    @property
    def going_on(self) -> str:
        """What is typed to go on with the run where it is stopped."""
        assert self.directory is not None
        return f"idl {self.command} {typed_word('trainer.resume', self.directory.shown)}"

    def claim(self) -> RunDirectory:
        """Make the run directory ours. Raises: InputError where it is taken or not writable."""
        self.directory = RunDirectory.claim(self.output, may_rename=not self.output_chosen)
        return self.directory

    def write_summary(self, status: str, error: str | None, exit_code: int) -> None:
        """The last thing that is written, whatever happened."""
        if self.directory is None:
            return
        summary: dict[str, Any] = {
            "status": status,
            "command": self.command,
            "error": error,
            "exit_code": exit_code,
            "run_dir": str(self.directory.path.absolute()),
            "started": self.started.strftime("%Y-%m-%d %H:%M:%S"),
            "seed": self.values.get("seed"),
            "versions": _versions(),
            "device": None,
            "git_commit": self.git_commit,
            "parameters": None,
            "wall_s": round(time.monotonic() - self.began, 3),
            "epochs": 0,
            "steps": 0,
            "train": {},
            "val": {},
            "test": {},
        }
        if self.cluster_job is not None:
            summary["cluster_job"] = self.cluster_job
        try:
            self.directory.write_summary(summary | self.facts)
        except OSError as error:  # disk full, say: what was computed is done all the same
            reason = error.strerror or error
            self.screen.say(f"warning: {self.directory.summary} not written: {reason}")
            if status == "completed":
                raise RunFailed(f"the run is done, but not its record ({reason})") from error


def run_job(command: str, config: DictConfig, compute: Callable[[Job], float]) -> float | None:
    """Run one job and see to its end, whichever that is.

    Returns: what `compute` does, the figure that a sweeper goes by; None, which Optuna's takes for
        a failure, where that is not finite or the job failed: in a sweep the other jobs go on; a
        single run's error is raised again once Hydra is through.
    Raises: SystemExit(130 or 143) and KeyboardInterrupt, which end a sweep too; from a process of a
        pool that would end the other jobs before they have saved: there it is None.
    """
    job = None
    try:
        job = Job.of(command, config)
        if isinstance(job.stop, PoolStop) and job.stop():
            return None  # what of the sweep has not begun is left for another time
        value = compute(job)
        job.screen.close()
        job.write_summary("completed", None, 0)
        _show_directory(job)
    except Interrupted as stop:
        assert job is not None
        job.screen.close()
        job.write_summary("interrupted", str(stop), stop.exit_code)
        job.screen.say(str(stop))
        _show_directory(job)
        if isinstance(job.stop, PoolStop):
            return None
        pass_on(stop.signal)
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        if job is not None:
            job.screen.close()
            job.write_summary("interrupted", "stopped at once by Ctrl-C", 130)
        raise
    except Exception as error:
        if job is not None:
            job.screen.close()
        _fail(job, error)
        return None
    finally:
        if job is not None and job.directory is not None:
            job.directory.release()
    return value if math.isfinite(value) else None


def _fail(job: Job | None, error: Exception) -> None:
    """Record what ended a job."""
    expected = isinstance(error, InputError | RunFailed)
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    exit_code = 2 if isinstance(error, InputError) else 1
    in_sweep = job is not None and job.number is not None
    if job is not None:
        if job.directory is not None and not job.directory.config.exists():
            job.directory.discard()  # it could not even be described
            job.directory = None
        if in_sweep and job.directory is None:
            # A sweep's table is made of its jobs' summaries, of those too that never began.
            with contextlib.suppress(InputError, OSError):
                job.claim().write_settings(_as_new(job.values), job.typed)
        job.write_summary("failed", text, exit_code)
        if in_sweep and job.directory is None:  # what is in its place is not this job's
            with contextlib.suppress(OSError):
                note_refusal(job.output, text, exit_code)
    if in_sweep:
        assert job is not None
        if not expected:
            traceback.print_exception(error)
        report_failure(exit_code)
        job.screen.say(f"job {job.number} failed: {text}")
    else:
        report_error(error)
        if job is not None:
            _show_directory(job)


def _as_new(values: dict[str, Any]) -> dict[str, Any]:
    """The values without how this attempt began."""
    groups = {key: values[key] for key in ("trainer", "sweep") if key in values}
    return values | {key: group | {"resume": None} for key, group in groups.items()}


def _show_directory(job: Job) -> None:
    if job.number is None and job.directory is not None:
        print(job.directory.shown, flush=True)


def _versions() -> dict[str, str]:
    versions = {"idl": metadata.version("idl"), "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _git_commit() -> str | None:
    """The commit of the folder that the command was started in; None where it is in none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
