"""The entries of summary.json, the record of how a run ended."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `idl info` reads versions before torch is needed
    from idl_core.training.callbacks import Metrics

_PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "safetensors")


@dataclass
class RunSummary:
    """The entries of summary.json, set as they become known.

    Attributes:
        git_commit: of the folder that the command was started in, when it was.
        train, val, test: metrics by split.
        data: the digest of what it is trained or evaluated on, and what was done to that.
        train_is: what the metrics of the train split are of, where not of the same weights.
        ranked_by: the metric by which runs like this are compared, as "val.loss".
        best_step: of the weights that val and test are of.
        solver_warnings: how often a solver ended short of its tolerance.
        persistence: metrics of the forecast that nothing changes, by split; of series alone.
        evaluated: what an evaluation is of: run, checkpoint, data, split.
        teacher, sim: of `idl sim`: the network's test metrics, and the quality of what was learned.
    """

    command: str
    seed: int | None = None
    cluster_job: str | None = None
    git_commit: str | None = field(default_factory=lambda: _git_commit())
    started: datetime = field(default_factory=datetime.now)
    began: float = field(default_factory=time.monotonic)
    device: str | None = None
    parameters: int | None = None
    data: dict[str, Any] | None = None
    epochs: int = 0
    steps: int = 0
    train: Metrics = field(default_factory=dict)
    val: Metrics = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)
    train_is: str | None = None
    ranked_by: str | None = None
    best_step: int | None = None
    stopped_early: bool | None = None
    solver_warnings: int | None = None
    persistence: dict[str, Metrics] | None = None
    evaluated: dict[str, str] | None = None
    teacher: Metrics | None = None
    sim: dict[str, Any] | None = None

    def as_dict(self, run: Path, status: str, error: str | None, exit_code: int) -> dict[str, Any]:
        """The entries as they are written; optional ones only where the run has them."""
        optional = {
            "data": self.data,
            "cluster_job": self.cluster_job,
            "evaluated": self.evaluated,
            "train_is": self.train_is,
            "ranked_by": self.ranked_by,
            "best_step": self.best_step,
            "stopped_early": self.stopped_early,
            "solver_warnings": self.solver_warnings,
            "persistence": self.persistence,
            "teacher": self.teacher,
            "sim": self.sim,
        }
        return {
            "status": status,
            "command": self.command,
            "error": error,
            "exit_code": exit_code,
            "run_dir": str(run.absolute()),
            "started": self.started.strftime("%Y-%m-%d %H:%M:%S"),
            "seed": self.seed,
            "versions": {name: v for name, v in versions(_PACKAGES).items() if v is not None},
            "device": self.device,
            "git_commit": self.git_commit,
            "parameters": self.parameters,
            "wall_s": round(time.monotonic() - self.began, 3),
            "epochs": self.epochs,
            "steps": self.steps,
            "train": self.train,
            "val": self.val,
            "test": self.test,
        } | {key: value for key, value in optional.items() if value is not None}


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of idl, Python and packages; None for a package that is not installed."""
    found: dict[str, str | None] = {
        "idl": metadata.version("idl"),
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _git_commit() -> str | None:
    """The commit of the current folder; None where it is in no repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
