"""`idl eval`: the figures of the training, found again; other data; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from idl_core.training import CheckpointFolder

from .conftest import Answer, Idl


@pytest.fixture
def trained(once: Idl, tiny: list[str]) -> Answer:
    answer = once("train", *tiny, "hydra.run.dir=trained")
    assert answer.code == 0, answer.err
    return answer


def test_it_finds_the_figures_of_the_training_again(idl: Idl, trained: Answer) -> None:
    before = {path: path.read_bytes() for path in trained.run.rglob("*") if path.is_file()}
    answer = idl("eval", "run=trained")
    assert answer.code == 0, answer.err
    assert answer.run.parent == Path("runs/eval")
    assert answer.summary["command"] == "eval"
    assert answer.summary["status"] == "completed"
    assert answer.summary["test"] == pytest.approx(trained.summary["test"], rel=1e-6)
    assert answer.summary["steps"] == trained.summary["best_step"]
    assert answer.summary["parameters"] == trained.summary["parameters"]
    assert f"{trained.summary['test']['accuracy']:.4f}" in answer.out
    assert {path: path.read_bytes() for path in trained.run.rglob("*") if path.is_file()} == before


def test_validation_split_and_last_weights(idl: Idl, trained: Answer) -> None:
    answer = idl("eval", "run=trained", "split=val")
    assert answer.summary["val"] == pytest.approx(trained.summary["val"], rel=1e-6)
    answer = idl("eval", "run=trained", "checkpoint=last", "batch_size=7", "device=cpu")
    assert answer.code == 0, answer.err
    assert answer.summary["steps"] == trained.summary["steps"]


def test_other_data_of_the_same_shape(idl: Idl, trained: Answer, tmp_path: Path) -> None:
    x, y = np.eye(3, 6, dtype=np.float32), np.arange(3)
    np.savez(tmp_path / "other.npz", x_train=x, y_train=y, x_test=2 * x, y_test=y)
    answer = idl("eval", "run=trained", "data.path=other.npz", "data.val_fraction=0")
    assert answer.code == 0, answer.err
    assert answer.summary["test"] != trained.summary["test"]
    assert answer.summary["evaluated"]["data"] == "arrays"
    answer = idl("eval", "run=trained", "data=arrays", "data.path=other.npz",
                 "data.val_fraction=0", "split=val")  # fmt: skip
    assert answer.code == 2
    assert "split=val" in answer.err


def test_several_runs_in_one_table(idl: Idl, trained: Answer, tiny: list[str]) -> None:
    idl("train", *tiny, "seed=5", "hydra.run.dir=other")
    answer = idl("eval", "-m", "run=trained,other")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].split()[:2] == ["job", "run"]
    assert {line.split()[1] for line in lines[1:3]} == {"trained", "other"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "run=<...> is needed"),
        ("run=nowhere", "there is no such folder"),
        ("run=.", "is a folder of runs"),
        ("run=trained data=digits", "data=digits does not fit"),
        ("run=trained data=minst", "Did you mean 'mnist'?"),
        ("run=trained data.path=none.npz", "none.npz does not exist"),
        ("run=trained checkpoint=first", "choose from best, last"),
        ("run=trained batch_size=0", "batch_size=0"),
        ("run=trained device=cuda:99", "device=cuda:99"),
        ("run=trained bach_size=3", "Did you mean 'batch_size'?"),
        ("run=trained name=a/b", "name='a/b'"),
        ("run=trained hydra.run.dir=trained", "holds a run already"),
    ],
)
def test_wrong_input(idl: Idl, trained: Answer, tmp_path: Path, words: str, said: str) -> None:
    answer = idl("eval", *words.split())
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1, answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def damage(run: Path, how: str) -> None:
    checkpoints, config = run / "checkpoints", run / "config.yaml"
    values: dict[str, Any] = yaml.safe_load(config.read_text())
    if how == "absent":
        for path in checkpoints.iterdir():
            path.unlink()
    elif how == "cut":
        for path in checkpoints.iterdir():
            path.write_bytes(path.read_bytes()[:-1])
    elif how == "other model":
        values["model"]["hidden_dim"] = 6
    elif how == "code":
        values["model"]["_target_"] = "os.system"
    elif how == "no yaml":
        config.write_text("{")
        return
    elif how == "foreign":
        folder = CheckpointFolder(checkpoints, "not JSON")
        best = CheckpointFolder(checkpoints).load_best()
        folder.save_best(best)
    config.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("absent", "no checkpoint"),
        ("cut", "is damaged"),
        ("other model", "checkpoint of another model"),
        ("code", "model._target_=os.system"),
        ("no yaml", "config.yaml' is damaged"),
        ("foreign", "does not say what model"),
    ],
)
def test_damaged_runs(idl: Idl, trained: Answer, tmp_path: Path, how: str, said: str) -> None:
    damage(trained.run, how)
    answer = idl("eval", "run=trained")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1, answer.err
    assert not (tmp_path / "runs").exists()


def test_help_is_its_own(idl: Idl) -> None:
    answer = idl("eval", "--help")
    assert answer.code == 0
    assert "usage: idl eval run=<dir>" in answer.out


def test_summary_is_valid_json_for_any_reader(idl: Idl, trained: Answer) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in (trained.run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    json.loads((trained.run / "summary.json").read_text(), parse_constant=refuse)
