"""`idl eval`: the figures of the training, found again; other data; and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from idl_core.training import CheckpointFolder
from idl_datasets import load

from ..conftest import Answer, Idl, with_other_inputs


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


def figures_by_hand(run: Path, arrays: Path, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Loss and accuracy of the best weights of an implicit model, by NumPy in float64.

    Inputs are normalised by what the training saw: train rows of `arrays`, without validation's.
    """
    seen = load("arrays", path=arrays, val_fraction=0.1, seed=0).train.x.double().numpy()
    weights = CheckpointFolder(run / "checkpoints").load_best().tensors
    A, B, C, D = (weights[f"model.{name}"].double().numpy() for name in "ABCD")
    U = ((x - seen.mean(0)) / seen.std(0)).T
    X = np.zeros((len(A), len(x)))
    for _ in range(2000):
        X = np.maximum(A @ X + B @ U, 0)
    scores = C @ X + D @ U
    logs = scores - np.log(np.exp(scores).sum(0))
    return {
        "loss": float(-logs[y, np.arange(len(y))].mean()),
        "accuracy": float((scores.argmax(0) == y).mean()),
    }


def test_other_data_of_the_same_shape(
    idl: Idl, trained: Answer, arrays: Path, tmp_path: Path
) -> None:
    x, y = np.eye(3, 6, dtype=np.float32), np.arange(3)
    np.savez(tmp_path / "other.npz", x_train=x, y_train=y, x_test=2 * x, y_test=y)
    answer = idl("eval", "run=trained", "data.path=other.npz", "data.val_fraction=0")
    assert answer.code == 0, answer.err
    expected = figures_by_hand(trained.run, arrays, 2 * x, y)
    assert answer.summary["test"] == pytest.approx(expected, rel=1e-5)
    assert answer.summary["evaluated"]["data"] == "arrays"
    answer = idl("eval", "run=trained", "data=arrays", "data.path=other.npz",
                 "data.val_fraction=0", "split=val")  # fmt: skip
    assert answer.code == 2
    assert "split=val" in answer.err


def test_figures_do_not_depend_on_the_train_rows_that_come_along(
    idl: Idl, trained: Answer, arrays: Path, tmp_path: Path
) -> None:
    with_other_inputs(arrays, tmp_path / "shift.npz", 3, 5)
    for words in ("data.path=shift.npz", "data.val_fraction=0.8"):
        answer = idl("eval", "run=trained", words)
        assert answer.code == 0, answer.err
        assert answer.summary["test"] == trained.summary["test"]
        assert "warning" not in answer.err
    with_other_inputs(arrays, tmp_path / "bytes.npz", 255, 0)
    answer = idl("eval", "run=trained", "data.path=bytes.npz")
    assert "they must be in the same units" in answer.err


def test_a_checkpoint_that_kept_no_normalisation_takes_that_of_the_data(
    idl: Idl, trained: Answer, arrays: Path, tmp_path: Path
) -> None:
    folder = CheckpointFolder(trained.run / "checkpoints")
    best = folder.load_best()
    older = {name: tensor for name, tensor in best.tensors.items() if name.startswith("model.")}
    CheckpointFolder(folder.folder, best.state["fingerprint"]).save_best(
        replace(best, tensors=older)
    )
    answer = idl("eval", "run=trained")
    assert "kept no normalisation" in answer.out + answer.err
    assert answer.summary["test"] == trained.summary["test"]


def test_the_same_values_in_another_shape(
    idl: Idl, trained: Answer, arrays: Path, tmp_path: Path
) -> None:
    with np.load(arrays) as file:
        whole = dict(file)
    for name in ("x_train", "x_test"):
        whole[name] = whole[name].reshape(-1, 2, 3)
    np.savez(tmp_path / "pictures.npz", **whole)
    answer = idl("eval", "run=trained", "data.path=pictures.npz")
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == pytest.approx(trained.summary["test"], rel=1e-6)


def test_the_checkpoint_before_a_damaged_one_is_said(idl: Idl, trained: Answer) -> None:
    last = trained.run / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    answer = idl("eval", "run=trained", "checkpoint=last")
    assert answer.code == 0, answer.err
    assert answer.summary["steps"] < trained.summary["steps"]
    assert "last.safetensors' is damaged" in answer.out + answer.err
    said = f"the one before it is taken, of step {answer.summary['steps']}"
    assert said in answer.out + answer.err


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
        ("trained", "settings are written key=value, as run=trained"),
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
