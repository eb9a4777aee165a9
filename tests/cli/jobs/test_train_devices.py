"""`trainer.devices=2` on the CPU: real worker processes, one run, one record."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ..conftest import Idl, Start

TWO = ("trainer.devices=2", "trainer.accelerator=cpu")


def curve(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(one: Path, other: Path) -> None:
    """As far as rounding, which differs, has not carried them apart."""
    lines = list(zip(curve(one), curve(other), strict=True))
    assert lines
    for first, second in lines[100:]:
        assert (first["step"], first["split"]) == (second["step"], second["split"])
    lines = lines[:100]
    for first, second in lines:
        for key in ("step", "epoch", "split"):
            assert first[key] == second[key]
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert second.get("accuracy") == pytest.approx(first.get("accuracy"))


def workers(folder: Path) -> list[int]:
    """The workers on this machine that were started in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            here = Path(os.readlink(process / "cwd")) == folder
        except OSError:
            continue
        if b"idl_cli.jobs.training.worker" in command and here:
            found.append(int(process.name))
    return sorted(found)


def test_two_workers_in_a_job_of_a_sweep_train_as_one_process_does(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    # 72 samples: every other batch is one alone, fewer than there are workers.
    words = [*tiny, "trainer.batch_size=71", "trainer.log_every=1", "trainer.accelerator=cpu"]
    answer = idl("train", "-m", *words, "trainer.devices=1,2")
    assert answer.code == 0, answer.err
    alone, two = answer.run / "0", answer.run / "1"
    assert_same_curve(alone, two)
    one, summary = (json.loads((run / "summary.json").read_text()) for run in (alone, two))
    assert (one["device"], summary["device"]) == ("cpu", "2 x cpu")
    assert summary["status"] == "completed"
    for split in ("train", "val", "test"):
        assert summary[split] == pytest.approx(one[split], abs=1e-5)
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in alone.iterdir())
    assert yaml.safe_load((two / "config.yaml").read_text())["trainer"]["devices"] == "2"
    assert not workers(tmp_path)


def test_a_worker_that_is_killed_ends_the_run_and_is_named(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            time.sleep(0.05)
            if metrics.exists() and metrics.read_text().count("\n") > 20:
                killed.append(workers(tmp_path)[1])
                os.kill(killed[0], signal.SIGKILL)
        if not killed:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill_one)
    thread.start()
    answer = idl("train", *tiny, "trainer.max_epochs=1000000", *TWO, "hydra.run.dir=run")
    thread.join()
    assert killed
    assert answer.code == 1
    line = answer.err.splitlines()[-1]
    assert "of 2 failed: it was ended by SIGKILL (exit code -9)" in line
    assert not workers(tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


def test_a_signal_ends_the_workers_and_the_run_goes_on_with_one(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    def stop() -> None:
        metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if metrics.exists() and metrics.read_text().count("\n") > 20:
                break
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    words = [*tiny, "trainer.max_epochs=1000000", "hydra.run.dir=run"]
    answer = idl("train", *words, *TWO)
    thread.join()
    assert answer.code == 143, answer.err
    assert not workers(tmp_path)
    assert "saved; go on with: idl train trainer.resume=run" in answer.err
    steps = answer.summary["steps"]
    end = f"trainer.max_epochs={steps // 9 + 2}"
    resumed = idl("train", "trainer.resume=run", end, "trainer.devices=1")
    assert resumed.code == 0, resumed.err
    assert f"going on after step {steps} of" in resumed.err
    assert_same_curve(idl("train", *tiny, end, "hydra.run.dir=whole").run, resumed.run)


def test_workers_end_with_a_parent_that_is_killed(
    start: Start, tiny: list[str], tmp_path: Path
) -> None:
    process = start("train", *tiny, *TWO)
    deadline = time.monotonic() + 120
    while len(workers(tmp_path)) < 2:
        assert process.is_alive(), process.ended()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.ended().code == -signal.SIGKILL
    while workers(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_ends_a_worker_is_told_as_by_one_process(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(module: str, argument: str, count: int, folder: Path) -> None:
        env = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        env |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                importlib.import_module(module).main(argument)
            finally:
                torch.distributed.destroy_process_group()

    monkeypatch.setattr("idl_cli.processes.worker_pool.run_workers", run_here)
    answer = idl("train", *tiny, *TWO, "optimizer=sgd", "optimizer.lr=1e30")
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("idl: non-finite")
    assert "lower optimizer.lr" in answer.err


def test_under_torchrun_the_ranks_join_one_run(tiny: list[str], tmp_path: Path, idl: Idl) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch.append("--local-addr=localhost")  # the machine's own name may not be resolved
    done = subprocess.run(
        [sys.executable, *launch, "-m", "idl_cli.main", "train", *tiny, "hydra.run.dir=a/joined"],
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "a/joined"
    assert done.stdout.splitlines().count("a/joined") == 1  # one rank speaks, not each
    assert done.stdout.count("88 parameters, 3 epochs") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert_same_curve(idl("train", *tiny).run, tmp_path / "a" / "joined")


def test_a_sweep_under_torchrun_is_refused(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    answer = idl("train", "-m", *tiny, "seed=1,2")
    assert answer.code == 2
    assert "-m under torchrun" in answer.err
    assert not list(tmp_path.iterdir())
