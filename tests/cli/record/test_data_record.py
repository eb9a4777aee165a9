"""A run remembers its data by their content and their classes, and holds others against them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import Answer, Idl


def pictures(folder: Path, *kinds: str, seed: int = 0) -> str:
    """Ten pictures a class to train on and four to test, of a shade that its first letter gives."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", 10), ("test", 4)):
        for name in kinds:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                shade = 40 * (ord(name[0]) - ord("a")) + rng.integers(0, 20, (4, 4))
                Image.fromarray(shade.astype(np.uint8)).save(
                    folder / split / name / f"{number}.png"
                )
    return f"data.path={folder}"


def train(idl: Idl, *words: str) -> Answer:
    answer = idl("train", "data=image_folder", "model=mlp", "model.hidden_dims=[6]",
                 "trainer.max_epochs=30", "trainer.batch_size=8", *words)  # fmt: skip
    assert answer.code == 0, answer.err
    return answer


@pytest.fixture
def abc(tmp_path: Path) -> Path:
    """Pictures of ants, cats and elks."""
    pictures(tmp_path / "abc", "ant", "cat", "elk")
    return tmp_path / "abc"


@pytest.fixture
def trained(once: Idl, abc: Path) -> Answer:
    """A model that tells them apart."""
    words = ("data=image_folder", "data.path=abc", "model=mlp", "model.hidden_dims=[6]")
    return once("train", *words, "trainer.max_epochs=30", "trainer.batch_size=8",
                "hydra.run.dir=trained")  # fmt: skip


@pytest.mark.parametrize(
    "kinds", [("ant", "cat", "elk"), ("cat", "elk"), ("elk", "ant"), ("elk",), ("cat",)]
)
def test_other_pictures_are_matched_by_the_names_of_their_classes(
    idl: Idl, abc: Path, trained: Answer, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    answer = idl("eval", "run=trained", pictures(tmp_path / "other", *kinds, seed=1))
    assert answer.code == 0, answer.err
    assert answer.summary["test"]["accuracy"] == 1.0


def test_other_classes_are_refused(idl: Idl, abc: Path, trained: Answer, tmp_path: Path) -> None:
    answer = idl("eval", "run=trained", pictures(tmp_path / "other", "ant", "cats"))
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert (
        "class 'cats' is none of those that the model was trained on (ant, cat, elk)" in answer.err
    )
    assert "Did you mean 'cat'?" in answer.err


def test_the_record_of_the_data(idl: Idl, abc: Path, trained: Answer, tmp_path: Path) -> None:
    record = json.loads((tmp_path / "trained" / "data.json").read_text())
    assert record["class_names"] == ["ant", "cat", "elk"]
    summary = json.loads((tmp_path / "trained" / "summary.json").read_text())
    assert summary["data"] == {"digest": record["digest"], "notes": []}
    answer = idl("data", "prepare", "image_folder", f"path={abc}")
    assert f"content: {record['digest']}" in answer.out


def test_a_damaged_record_is_said(idl: Idl, abc: Path, trained: Answer, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"name": 1, "digest": "", "class_names": [], "notes": []}'):
        (tmp_path / "trained" / "data.json").write_text(text)
        answer = idl("eval", "run=trained", f"data.path={abc}")
        assert answer.code == 2
        assert "data.json' is damaged" in answer.err
    (tmp_path / "trained" / "data.json").unlink()  # as in a run of an older idl
    assert idl("eval", "run=trained", f"data.path={abc}").code == 0


def test_a_run_goes_on_with_the_data_that_it_was_trained_on(
    idl: Idl, abc: Path, trained: Answer, tmp_path: Path
) -> None:
    before = {
        path: path.read_bytes() for path in (tmp_path / "trained").rglob("*") if path.is_file()
    }
    (abc / "train" / "cat" / "3.png").unlink()
    words = ("trainer.resume=trained", "trainer.max_epochs=31", f"data.path={abc}")
    answer = idl("train", *words)
    assert answer.code == 2
    assert answer.err.splitlines()[0] == "decoding abc"
    assert len(answer.err.splitlines()) == 2
    assert "data=image_folder: its content is not what 'trained' was trained on" in answer.err
    after = {
        path: path.read_bytes() for path in (tmp_path / "trained").rglob("*") if path.is_file()
    }
    assert after == before
    shutil.rmtree(abc)
    moved = pictures(tmp_path / "moved", "ant", "cat", "elk")
    answer = idl("train", *words[:2], moved)
    assert answer.code == 0, answer.err
    assert answer.summary["epochs"] == 31


def test_what_was_done_to_the_data_is_said_and_recorded(idl: Idl, tmp_path: Path) -> None:
    path = pictures(tmp_path / "p", "ant", "cat")
    (tmp_path / "p" / "train" / "cat" / "1.heic").write_bytes(b"x")
    answer = train(idl, path, "trainer.max_epochs=1")
    (said,) = answer.summary["data"]["notes"]
    assert "no pictures that are read here: 1 (1 .heic)" in said
    assert f"data=image_folder: {said}\n" in answer.err
    assert f"data=image_folder: {said}\n" in idl("eval", f"run={answer.run}").err
    assert f"note: {said}\n" in idl("data", "prepare", "image_folder", path.split(".")[1]).out


def test_one_class_is_refused_before_a_run_is_made(idl: Idl, tmp_path: Path) -> None:
    answer = idl("train", "data=image_folder", pictures(tmp_path / "p", "ant"))
    assert answer.code == 2
    assert "'ant' is the only class" in answer.err
    assert not (tmp_path / "runs").exists()


def test_the_choice_of_a_column_is_said(idl: Idl, tmp_path: Path) -> None:
    rows = [f"{number},{number % 7},{number % 5}" for number in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["t,a,b", *rows]))
    words = ("train", "model=mlp", "data=timeseries", "data.path=t.csv", "data.look_back=5",
             "trainer.max_epochs=1")  # fmt: skip
    answer = idl(*words)
    assert answer.code == 0, answer.err
    assert "data=timeseries: column 'b', the last, is predicted" in answer.err
    assert "the last, is predicted" not in idl(*words, "data.column=a").err


def test_weights_of_other_data_keep_what_their_outputs_stand_for(idl: Idl, tmp_path: Path) -> None:
    def arrays(name: str, *words: str) -> str:
        rng = np.random.default_rng(1)
        y = np.arange(60) % 3
        x = 3.0 * np.eye(3)[y] + 0.1 * rng.normal(size=(60, 3))
        labels = np.array(words)[y]
        np.savez(tmp_path / name, x_train=x, y_train=labels, x_test=x, y_test=labels)
        return f"data.path={name}.npz"

    tiny = ["data=arrays", "model.hidden_dim=6", "trainer.batch_size=8"]
    first = idl("train", *tiny, arrays("a", "ant", "bee", "cow"), "hydra.run.dir=first")
    assert first.summary["test"]["accuracy"] == 1.0
    other = arrays("b", "cow", "ant", "bee")  # the same clouds under other names
    np.savez(tmp_path / "c", **dict(np.load(tmp_path / "a.npz")))
    again = idl("train", *tiny, "data.path=c.npz", "model.init_from=first", "optimizer.lr=1e-9",
                "trainer.max_epochs=1")  # fmt: skip
    assert again.summary["test"]["accuracy"] == 1.0
    moved = idl("train", *tiny, other, "model.init_from=first", "optimizer.lr=1e-9",
                "trainer.max_epochs=1")  # fmt: skip
    assert moved.summary["test"]["accuracy"] == 0.0
    foreign = idl("train", *tiny, arrays("d", "x", "y", "z"), "model.init_from=first",
                  "trainer.max_epochs=1")  # fmt: skip
    assert "it was trained on the classes ant, bee, cow; what its outputs stand for" in foreign.err


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_task_of_arrays_can_be_chosen(idl: Idl, tmp_path: Path, task: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), np.arange(60.0) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    answer = idl("train", "data=arrays", "data.path=a.npz", f"data.task={task}", "model=mlp",
                 "trainer.max_epochs=1")  # fmt: skip
    assert answer.code == 0, answer.err
    assert ("accuracy" in answer.summary["test"]) == (task == "classification")
    assert idl("eval", f"run={answer.run}").code == 0
    wrong = idl("train", "data=arrays", "data.path=a.npz", "data.task=regresion")
    assert wrong.code == 2
    assert "data.task=regresion" in wrong.err
