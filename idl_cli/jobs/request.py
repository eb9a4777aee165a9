"""The interface between hydra_app, which composes jobs, and jobs, which run them.

Nothing heavy is imported here: hydra_app loads it before torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JobRequest:
    """One job: its configuration, and where it runs.

    Attributes:
        values: the composed configuration as plain values.
        typed: what was typed, as `key=value`.
        output: where the run directory is to be.
        output_chosen: the user named it.
        number, sweep: the number of a sweep's job and the sweep's folder; None in a single run.
        in_pool: this process belongs to a pool of processes that run the jobs of a sweep.
        cluster_job: what submitit calls it; None where it is no job of submitit's.
    """

    values: dict[str, Any]
    typed: list[str]
    output: Path
    output_chosen: bool
    number: int | None = None
    sweep: Path | None = None
    in_pool: bool = False
    cluster_job: str | None = None


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        value: the metric that a sweeper goes by; None where there is none that is finite.
        error: what ended a job that failed.
        message: the error in one line.
        exit_code: of the command, if this is its only job.
        recorded: whether a failure stands in a summary.json of its own.
    """

    value: float | None = None
    error: Exception | None = None
    message: str = ""
    exit_code: int = 0
    recorded: bool = True
