"""What training survives, or ends with in one line: full disks, memory, a dying wandb."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb

from idl_core.training import Callback, CheckpointFolder

from .conftest import Idl


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; mounting one needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_and_survived(
    idl: Idl, tiny: list[str], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = small_disk / "filler"

    def fill_and_free(self: Callback, progress: Any) -> None:
        if progress.step == 9:  # after a checkpoint of this step
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(512))
                except OSError:
                    pass

    monkeypatch.setattr("idl_cli.screen.Screen.on_save", fill_and_free)
    run = small_disk / "run"
    answer = idl("train", *tiny, f"hydra.run.dir={run}")
    assert answer.code == 1  # the training went on to its end; its record could not be written
    assert "No space left on device" in answer.err
    assert "checkpoint not written" in answer.err
    assert "metrics.jsonl not written" in answer.err
    assert "the run is done, but not its record" in answer.err.splitlines()[-1]
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


def test_metrics_that_could_not_be_written_are_written_later(
    idl: Idl, tiny: list[str], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = small_disk / "filler"

    def fill_and_free(self: Callback, progress: Any) -> None:
        if progress.step == 9:
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(512))
                except OSError:
                    pass

    def free(self: Callback, problem: str) -> None:
        filler.unlink(missing_ok=True)

    monkeypatch.setattr("idl_cli.screen.Screen.on_save", fill_and_free)
    monkeypatch.setattr("idl_cli.screen.Screen.on_problem", free)
    answer = idl("train", *tiny, f"hydra.run.dir={small_disk / 'run'}")
    assert answer.code == 0, answer.err
    monkeypatch.undo()
    monkeypatch.chdir(small_disk.parent)
    whole = idl("train", *tiny)
    assert (answer.run / "metrics.jsonl").read_text() == (whole.run / "metrics.jsonl").read_text()


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

    monkeypatch.setattr("idl_core.training.loop.forward", full)
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
