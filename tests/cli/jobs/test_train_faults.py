"""What training survives, or ends with in one line: full disks, memory, a dying wandb."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb

from idl_cli.record.loggers.metrics_file import MetricsLogger
from idl_core.training import Callback, Checkpoint, CheckpointFolder, Plan, Progress

from ..conftest import Idl


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 KiB; mounting one needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_and_survived(
    idl: Idl, tiny: list[str], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = small_disk / "filler"

    def fill(self: Callback, progress: Any) -> None:
        if progress.step == 9:  # after a checkpoint of this step
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(512))

    monkeypatch.setattr("idl_cli.display.progress.Screen.on_save", fill)
    run = small_disk / "run"
    answer = idl("train", *tiny, f"hydra.run.dir={run}")
    assert answer.code == 1  # the training went on to its end; its record could not be written
    assert "No space left on device" in answer.err
    assert "checkpoint not written" in answer.err
    assert "summary.json not written" in answer.err
    assert "step 27 could not be saved" in answer.err.splitlines()[-1]
    last, _, problems = CheckpointFolder(run / "checkpoints").load()
    assert last is not None
    assert (last.step, problems) == (9, [])

    filler.unlink()
    monkeypatch.undo()
    monkeypatch.chdir(small_disk.parent)
    monkeypatch.setenv("CI", "true")
    resumed = idl("train", f"trainer.resume={run}")
    assert resumed.code == 0, resumed.err
    whole = idl("train", *tiny)
    for key in ("steps", "train", "val", "test"):
        assert resumed.summary[key] == whole.summary[key]
    metrics = [path.read_text() for path in (run / "metrics.jsonl", whole.run / "metrics.jsonl")]
    assert metrics[0] == metrics[1]


def test_weights_that_could_not_be_saved_are_no_completed_run(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = idl("train", *tiny, "hydra.run.dir=whole")

    def full(self: CheckpointFolder, last: Checkpoint, best: Checkpoint | None) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(CheckpointFolder, "save", full)
        answer = idl("train", *tiny, "hydra.run.dir=run")
    assert answer.code == 1
    assert "step 27 could not be saved" in answer.err.splitlines()[-1]
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["test"] == whole.summary["test"]  # the best weights, for which there was room
    assert idl("eval", "run=run").summary["test"] == whole.summary["test"]


def test_a_picture_that_cannot_be_written_costs_no_figures(
    idl: Idl, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(scratch: Path, path: Path) -> None:
        if Path(path).suffix == ".png":
            assert Path(scratch).exists()  # of which nothing may be left
            raise OSError(28, "No space left on device")
        replace(scratch, path)

    words = ["model=gru", "model.hidden_dim=2", "trainer.max_steps=2", "hydra.run.dir=run"]
    assert idl("train", *words).code == 0
    before = Path("run/figures/forecast.png").read_bytes()
    monkeypatch.setattr(os, "replace", full)
    answer = idl("train", "trainer.resume=run", "trainer.max_steps=3")
    assert answer.code == 0, answer.err
    assert "warning: run/figures/forecast.png not written: No space left on device" in answer.err
    assert answer.summary["steps"] == 3
    assert [path.name for path in Path("run/figures").iterdir()] == ["forecast.png"]
    assert Path("run/figures/forecast.png").read_bytes() == before


def test_a_disk_that_is_full_from_the_start_is_one_line_and_leaves_nothing(
    idl: Idl, tiny: list[str], small_disk: Path
) -> None:
    small = small_disk / "filler"
    with open(small, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    answer = idl("train", *tiny, f"hydra.run.dir={small_disk}/below/run")
    assert answer.code == 2
    assert answer.err.startswith(f"idl: cannot write the run directory '{small_disk}/below/run'")
    assert answer.err.count("\n") == 1, answer.err
    assert answer.out == ""
    assert list(small_disk.iterdir()) == [small]


def test_a_run_that_fails_says_how_far_it_came(idl: Idl, tiny: list[str]) -> None:
    words = ["model=mlp", "optimizer=sgd", "optimizer.lr=30", "trainer.max_epochs=200"]
    words += ["trainer.log_every=1", "hydra.run.dir=run"]
    tiny = [word for word in tiny if "hidden_dim" not in word]
    assert idl("train", *tiny, *words).code == 1
    summary = json.loads(Path("run/summary.json").read_text())
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert summary["status"] == "failed"
    assert summary["steps"] == rows[-1]["step"] > 9
    assert summary["epochs"] == summary["steps"] // 9
    assert summary["train"]["loss"] == next(r for r in rows[::-1] if r["split"] == "train")["loss"]
    best = min((row["loss"] for row in rows if row["split"] == "val"), default=None)
    assert summary["val"]["loss"] == best


def test_the_commit_is_that_of_the_code_that_was_started(
    idl: Idl, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def commit(message: str) -> None:
        words = ["git", *who, "commit", "-q", "--allow-empty", "-m", message]
        subprocess.run(words, cwd=tmp_path, check=True)

    def commit_more(self: Callback, progress: Any) -> None:
        commit("meanwhile")
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    commit("first")
    head = ["git", "rev-parse", "HEAD"]
    first = subprocess.run(head, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    monkeypatch.setattr("idl_cli.display.progress.Screen.on_save", commit_more)
    answer = idl("train", *tiny, "trainer.max_epochs=1")
    assert answer.summary["git_commit"] == first.strip()
    now = subprocess.run(head, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert now != first


def test_metrics_that_could_not_be_written_are_written_later(tmp_path: Path) -> None:
    """The kernel is asked to let no file grow, for a while."""
    said: list[str] = []
    record = MetricsLogger(tmp_path / "metrics.jsonl", said.append)
    record.on_start(Plan(9, 3, 0, 8))
    record.on_log(Progress(step=1), {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (record.path.stat().st_size + 5, before[1]))
    try:
        record.on_log(Progress(step=2), {"loss": 0.5})
        record.on_log(Progress(step=3), {"loss": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(said) == 1
    assert "metrics.jsonl not written (File too large)" in said[0]
    record.close()
    lines = [json.loads(line) for line in record.path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 0.25)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_says_what_took_it_and_what_to_lower(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("idl_core.training.step.forward", full)
    answer = idl("train", *tiny)
    assert answer.code == 1
    line = answer.err.splitlines()[-1]
    assert line.startswith("idl: out of memory on cpu: the model with its optimizer took ")
    assert "a batch of 8 192 B" in line  # 8 samples of 6 numbers of 4 bytes
    assert "lower trainer.batch_size" in line
    assert "Traceback" not in answer.err


def test_the_same_command_again_goes_on_with_auto(idl: Idl, tiny: list[str]) -> None:
    words = [*tiny, "experiment=mnist_implicit", "data=arrays", "hydra.run.dir=here"]
    words += ["trainer.resume=auto"]
    assert idl("train", *words).code == 0
    again = idl("train", *words)  # the experiment's words do not stand in its way
    assert again.code == 0, again.err
    Path("here/config.yaml").unlink()  # killed before it was written
    Path("here/summary.json").unlink()
    assert idl("train", *words).code == 0


def test_wandb_whose_service_dies_does_not_stop_the_run(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(_services())
    real = wandb.init

    def init(**settings: Any) -> Any:
        run = real(**settings)
        for pid in set(_services()) - before:
            os.kill(pid, signal.SIGKILL)
        return run

    monkeypatch.setattr(wandb, "init", init)
    answer = idl("train", *tiny, "logger=wandb", "logger.mode=offline")
    assert answer.code == 0, answer.err
    assert answer.summary["status"] == "completed"
    lines = (answer.run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["split"] == "test"


def _services() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"wandb-core" in command:
            found.append(int(process.name))
    return found
