"""A job: its run directory and its summary, and recording how it ended."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from idl_cli.display.progress import Screen, SilentScreen, make_screen
from idl_cli.errors import InputError, RunFailed
from idl_cli.jobs.earlier_record import EarlierRecord
from idl_cli.jobs.request import JobOutcome, JobRequest
from idl_cli.processes.device_memory import too_large
from idl_cli.processes.ranks import Ranks
from idl_cli.processes.stop_signals import Interrupted, PoolStop, StopSignals, pass_on
from idl_cli.record.run_directory import RunDirectory
from idl_cli.record.summary import RunSummary
from idl_cli.typed_words import typed_word


@dataclass
class Job:
    """The state of a running job.

    Attributes:
        stop: true once a signal asked to stop; the job enters it where it can save.
        summary: entries of summary.json, filled in as they become known.
        directory: None until the job has one.
        earlier: the record of the complete run that it resumes, if any.
    """

    command: str
    request: JobRequest
    screen: Screen
    stop: StopSignals
    summary: RunSummary
    directory: RunDirectory | None = None
    earlier: EarlierRecord | None = None

    @classmethod
    def of(cls, command: str, request: JobRequest) -> Job:
        """The job of a request, with the screen and the signals that suit this process."""
        ranks = Ranks.of_environment()
        silent = ranks is not None and ranks.rank > 0
        pooled = request.in_pool and request.sweep is not None
        return cls(
            command,
            request,
            SilentScreen(request.number)
            if silent
            else make_screen(request.number, beside_others=request.in_pool),
            PoolStop(request.sweep) if pooled and request.sweep else StopSignals(),
            RunSummary(command, request.values.get("seed"), request.cluster_job),
        )

    @property
    def number(self) -> int | None:
        """The number of a sweep's job; None in a single run."""
        return self.request.number

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        assert self.directory is not None
        return f"idl {self.command} {typed_word('trainer.resume', self.directory.shown)}"

    def say_test_metrics(self) -> None:
        """Say the test metrics of a sweep's job in one line."""
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in self.summary.test.items())
        self.screen.say(f"job {self.number} done: test {metrics}")

    def stop_sweep(self, stop: StopSignals) -> None:
        """Raise Interrupted where a signal came too late for this job: it is for the sweep."""
        if stop() and self.number is not None:
            message = "stopped after a job that was just complete"
            raise Interrupted(message, stop.exit_code, stop.received)

    def claim(self) -> RunDirectory:
        """Make the run directory ours. Raises: InputError where it is taken or not writable."""
        may_rename = not self.request.output_chosen
        self.directory = RunDirectory.claim(self.request.output, may_rename=may_rename)
        return self.directory

    def write_summary(self, status: str, error: str | None, exit_code: int) -> None:
        """Write summary.json, the last thing that a job does, however it ended.

        Raises: RunFailed where a completed run cannot be recorded.
        """
        if self.directory is None:
            return
        entries = self.summary.as_dict(self.directory.path, status, error, exit_code)
        earlier = self.earlier
        added = earlier is None or not earlier.adds_nothing(self.summary.steps)
        try:
            if earlier is not None and not added and status != "completed":
                earlier.put_back()
                return
            if earlier is not None and not added and self.command == "train":
                # Shown again, not computed again.
                entries |= {key: earlier.summary.get(key) for key in ("started", "wall_s")}
            self.directory.write_summary(entries)
        except OSError as error:  # disk full, say: what was computed is done all the same
            reason = error.strerror or error
            self.screen.say(f"warning: {self.directory.summary} not written: {reason}")
            if status == "completed":
                raise RunFailed(f"the run is done, but not its record ({reason})") from error


def run_job(command: str, compute: Callable[[Job], float], request: JobRequest) -> JobOutcome:
    """Run one job and record how it ended.

    Args:
        compute: returns the metric that a sweeper goes by.

    Raises: SystemExit(130 or 143) and KeyboardInterrupt, which end a sweep too. In a process of a
        pool that would end the other jobs before they have saved: there the outcome has no value.
    """
    job = Job.of(command, request)
    if isinstance(job.stop, PoolStop) and job.stop():
        return JobOutcome()  # what of the sweep has not begun is left for another time
    try:
        value = compute(job)
        job.screen.close()
        job.write_summary("completed", None, 0)
        _print_directory(job)
    except Interrupted as stop:
        job.screen.close()
        job.write_summary("interrupted", str(stop), stop.exit_code)
        job.screen.say(str(stop))
        _print_directory(job)
        if isinstance(job.stop, PoolStop):
            return JobOutcome()
        pass_on(stop.signal)
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        job.screen.close()
        job.write_summary("interrupted", "stopped at once by Ctrl-C", 130)
        raise
    except Exception as error:
        job.screen.close()
        return _failed(job, error)
    finally:
        if job.directory is not None:
            job.directory.release()
    return JobOutcome(value if math.isfinite(value) else None)


def _failed(job: Job, error: Exception) -> JobOutcome:
    """Record what ended a job."""
    error = too_large(error) or error
    expected = isinstance(error, InputError | RunFailed)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    exit_code = 2 if isinstance(error, InputError) else 1
    in_sweep = job.number is not None
    if job.directory is not None and not job.directory.config.exists():
        job.directory.discard()  # it could not even be described
        job.directory = None
    if in_sweep and job.directory is None:
        # A sweep's table is made of its jobs' summaries, of those too that never began.
        with contextlib.suppress(InputError, OSError):
            job.claim().write_settings(_as_new(job.request.values), job.request.typed)
    job.write_summary("failed", message, exit_code)
    if in_sweep:
        if not expected:
            traceback.print_exception(error)
        job.screen.say(f"job {job.number} failed: {message}")
    else:
        _print_directory(job)
    # Where the directory could not be had, what is in its place is another job's.
    return JobOutcome(None, error, message, exit_code, recorded=job.directory is not None)


def _as_new(values: dict[str, Any]) -> dict[str, Any]:
    """The configuration without trainer.resume and sweep.resume."""
    groups = {key: values[key] for key in ("trainer", "sweep") if key in values}
    return values | {key: group | {"resume": None} for key, group in groups.items()}


def _print_directory(job: Job) -> None:
    if job.number is None and job.directory is not None:
        print(job.directory.shown, flush=True)
