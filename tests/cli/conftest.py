"""Commands in this process or in others, small data, and run directories made without training."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from idl_cli.main import main
from idl_cli.processes.stop_signals import StopSignals
from idl_core.training import CheckpointFolder

MakeRun = Callable[..., Path]


def write_run(
    path: Path,
    *,
    status: str | None = "completed",
    config: dict[str, Any] | None = None,
    overrides: tuple[str, ...] = (),
    metrics: tuple[dict[str, Any], ...] = (),
    **summary: Any,
) -> Path:
    """Write a run directory; with `status` None one that has no summary.json yet."""
    path.mkdir(parents=True)
    settings = {"model": {"name": "implicit", "hidden_dim": 64}, "data": {"name": "digits"}}
    (path / "config.yaml").write_text(yaml.safe_dump(settings | (config or {}), sort_keys=False))
    (path / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (path / "checkpoints").mkdir()
    (path / "figures").mkdir()
    if status is not None:
        figures = {"wall_s": 3.5, "epochs": 2, "steps": 40, "parameters": 9034, "error": None}
        figures |= {"val": {"loss": 0.2, "accuracy": 0.94}, "test": {"loss": 0.1, "accuracy": 0.97}}
        text = json.dumps({"status": status, "run_dir": str(path)} | figures | summary)
        (path / "summary.json").write_text(text)
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run("train/a", status="failed", ...)` below the test's own `runs/`."""
    return lambda name, **contents: write_run(tmp_path / "runs" / name, **contents)


@dataclass
class Answer:
    """What a command answered: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run directory, which is the last line of stdout."""
        return Path(self.out.splitlines()[-1])

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json of that run."""
        summary: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return summary


Idl = Callable[..., Answer]


@pytest.fixture
def idl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Idl:
    """`idl("train", "seed=1")` in this process, in an empty folder; as piped, not on a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))

    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


class Apart(multiprocessing.get_context("fork").Process):  # type: ignore[misc,name-defined]
    """A command in a process of its own, forked from this one: it need not load torch again."""

    def __init__(
        self, words: tuple[str, ...], folder: Path, told: Path, env: dict[str, str]
    ) -> None:
        super().__init__()
        self.words, self.folder, self.told, self.env = words, folder, told, env

    def run(self) -> None:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(self.told / name, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(self.folder)
        os.environ.update(self.env)
        sys.exit(main(self.words))

    def ended(self) -> Answer:
        """Wait for its end."""
        self.join(timeout=400)
        assert self.exitcode is not None
        return Answer(self.exitcode, *((self.told / name).read_text() for name in ("out", "err")))


Start = Callable[..., Apart]


@pytest.fixture
def start(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """`start("train", "seed=1", RANK="0")` in an empty folder: begins, and does not wait."""

    def begin(*words: str, **env: str) -> Apart:
        process = Apart(words, tmp_path, tmp_path_factory.mktemp("told"), env)
        process.start()
        return process

    return begin


@pytest.fixture(scope="session")
def kept() -> dict[tuple[str, ...], tuple[Answer, Path]]:
    """What `once` has run: its answers, and untouched copies of its runs."""
    return {}


@pytest.fixture
def once(
    idl: Idl,
    kept: dict[tuple[str, ...], tuple[Answer, Path]],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Idl:
    """As `idl`, for a run that many tests begin from: made once, each test has a copy of its own.

    The words name its folder: `once("train", *tiny, "hydra.run.dir=trained")`.
    """

    def call(*words: str) -> Answer:
        if words not in kept:
            answer = idl(*words)
            copy = tmp_path_factory.mktemp("kept") / "run"
            shutil.copytree(answer.run, copy)
            kept[words] = answer, copy
        else:
            shutil.copytree(kept[words][1], tmp_path / kept[words][0].run)
        return kept[words][0]

    return call


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of three classes in six dimensions: 80 samples to train, 30 to test."""
    random = np.random.default_rng(0)
    centres = 2 * np.eye(3, 6)
    y = {"train": np.arange(80) % 3, "test": np.arange(30) % 3}
    x = {
        name: (centres[labels] + 0.3 * random.standard_normal((len(labels), 6))).astype(np.float32)
        for name, labels in y.items()
    }
    path = tmp_path_factory.mktemp("arrays") / "classes.npz"
    np.savez(path, x_train=x["train"], y_train=y["train"], x_test=x["test"], y_test=y["test"])
    return path


def with_other_inputs(arrays: Path, path: Path, scale: float, shift: float) -> None:
    """Write the arrays anew, with other inputs to train on."""
    with np.load(arrays) as file:
        whole = dict(file)
    np.savez(path, **whole | {"x_train": shift + scale * whole["x_train"]})


@pytest.fixture
def tiny(arrays: Path) -> list[str]:
    """Overrides that make a training of milliseconds: 9 steps an epoch, 3 epochs."""
    return [
        "data=arrays",
        f"data.path={arrays}",
        "model.hidden_dim=5",
        "trainer.batch_size=8",
        "trainer.max_epochs=3",
        "trainer.log_every=4",
        "trainer.checkpoint_seconds=0",
    ]


StopAt = Callable[..., None]


class Killed(BaseException):
    """As `kill -9`: nothing is saved, nothing written."""


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> StopAt:
    """`stop_at(5)`: SIGTERM in the fifth step from now; `stop_at(5, kill=True)`: `kill -9`."""

    def at(step: int, *, kill: bool = False) -> None:
        asked: list[int] = []

        def call(self: StopSignals) -> bool:
            asked.append(1)
            if len(asked) == step and kill:
                raise Killed
            if len(asked) == step:
                signal.raise_signal(signal.SIGTERM)
            return self.received is not None

        monkeypatch.setattr(StopSignals, "__call__", call)

    return at


def assert_same_run(one: Path, other: Path) -> None:
    """Both ended with the same weights, bit for bit, and wrote the same metrics."""
    folders = [CheckpointFolder(run / "checkpoints") for run in (one, other)]
    for which in ("best", "last"):
        first, second = (
            folder.load_best() if which == "best" else folder.load()[0] for folder in folders
        )
        assert first is not None
        assert second is not None
        assert first.tensors.keys() == second.tensors.keys()
        for name in first.tensors:
            assert torch.equal(first.tensors[name], second.tensors[name]), (which, name)
    texts = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, other)]
    assert texts[0] == texts[1]
    summaries = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    for key in ("status", "epochs", "steps", "best_step", "train", "val", "test"):
        assert summaries[0][key] == summaries[1][key]
