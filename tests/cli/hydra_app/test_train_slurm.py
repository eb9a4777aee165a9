"""Real jobs on a real SLURM: run where scripts/slurm_local.sh has brought one up."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ..conftest import Idl, Start, assert_same_run


def is_up() -> bool:
    if shutil.which("scontrol") is None:
        return False
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return "is UP" in done.stdout


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not is_up(), reason="no SLURM here: bash scripts/slurm_local.sh"),
]


def command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_jobs_end_complete_and_exact_though_one_is_preempted(
    idl: Idl, start: Start, tiny: list[str], tmp_path: Path
) -> None:
    words = [*tiny, "trainer.max_epochs=80"]
    launcher = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.sweep.dir=sweep"]
    process = start("train", "-m", *words, "seed=1,2", *launcher)
    run, deadline = tmp_path / "sweep" / "1", time.monotonic() + 150
    while not (run / "checkpoints" / "last.safetensors").exists():
        assert process.is_alive(), process.ended()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    array = min(path.name for path in (tmp_path / "sweep" / ".submitit").glob("*_1"))
    command("scontrol", "requeue", array)
    while "JobState=PENDING" not in command("scontrol", "show", "job", array):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # SLURM lets a job that was queued again wait two minutes, unless it is told not to.
    command("scontrol", "update", f"JobId={array}", "StartTime=now")
    answer = process.ended()
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "sweep"
    assert "going on after step" in "".join(
        path.read_text() for path in (tmp_path / "sweep" / ".submitit" / array).glob("*.err")
    )
    for job, seed in (("0", 1), ("1", 2)):
        summary = json.loads((tmp_path / "sweep" / job / "summary.json").read_text())
        assert (summary["status"], summary["steps"]) == ("completed", 720)
        alone = idl("train", *words, "trainer.checkpoint_seconds=100", f"seed={seed}")
        assert_same_run(alone.run, tmp_path / "sweep" / job)
