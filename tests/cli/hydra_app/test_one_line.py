"""What Hydra would swallow, spread over lines or say of something else: one line, exit 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from idl_cli.hydra_app.readable_words import quoted_where_needed

from ..conftest import Idl

FEW = ["model=mlp", "model.hidden_dims=[3]", "trainer.max_epochs=1", "trainer.batch_size=40"]


@pytest.fixture
def few(arrays: Path) -> list[str]:
    """A training of two steps."""
    return ["data=arrays", f"data.path={arrays}", *FEW]


def refused(idl: Idl, folder: Path, words: list[str]) -> str:
    """The one line about words that are wrong; nothing else is printed or left behind."""
    before = sorted(folder.rglob("*"))
    answer = idl(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert sorted(folder.rglob("*")) == before
    return answer.err.removeprefix("idl: ").strip()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("sweep.resume=~nobody-of-this-name/x", "sweep.resume=~nobody-of-this-name/x: "),
        (f"sweep.resume={'x' * 300}", "File name too long"),
        (f"hydra.sweep.dir={'x' * 300}", "File name too long"),
    ],
)
def test_an_error_in_a_callback_ends_the_sweep(
    idl: Idl, few: list[str], tmp_path: Path, typed: str, says: str
) -> None:
    assert says in refused(idl, tmp_path, ["train", "-m", *few, "seed=1,2", typed])


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["seed=1,abc"], "seed=abc: it must be a whole number"),
        (["seed=1,2", "data.val_fraction=0.2,1"], "data.val_fraction=1: it must be"),
        (["seed=1,2", "optimizer.lr=0"], "optimizer.lr=0: it must be above 0"),
        (["name=a,a/b"], "name='a/b'"),
    ],
)
def test_a_sweep_with_one_wrong_job_runs_none(
    idl: Idl, few: list[str], tmp_path: Path, typed: list[str], says: str
) -> None:
    assert refused(idl, tmp_path, ["train", "-m", *few, *typed]).startswith(says)


def test_jobs_below_other_folders_are_in_the_table(
    idl: Idl, few: list[str], tmp_path: Path
) -> None:
    words = ["hydra.sweep.subdir=${model.name}/${seed}", "hydra.sweep.dir=sweep", "seed=1,2"]
    answer = idl("train", *few[:2], "-m", *few[2:], *words)  # settings on both sides of -m
    assert answer.code == 0, answer.err
    assert answer.out.count("completed") == 2
    assert (tmp_path / "sweep" / "mlp" / "2" / "summary.json").exists()
    failing = idl("train", "-m", *few, *words, "sweep.resume=sweep", "seed=1,3")
    assert failing.code == 0, failing.err


def test_jobs_below_other_folders_that_fail_are_counted(
    idl: Idl, few: list[str], tmp_path: Path
) -> None:
    words = ["hydra.sweep.subdir=${model.name}/${seed}", "seed=1,2", "data.path=none.npz"]
    answer = idl("train", "-m", *few, *words)
    assert answer.code == 2
    assert answer.out.count("failed") == 2


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("sim data=spiky", "data=spiky: choose from"),
        ("train data.name=spikey", "data.name=spikey: choose from"),
        ("train trainer.accelerator=gpu", "trainer.accelerator=gpu: torch finds no GPU"),
        ("train -m hydra.sweep.dir=/proc/a seed=1,2", "cannot write the run directory '/proc/a'"),
        ("train -sc install=bash", "--shell-completion"),
    ],
)  # fmt: skip
def test_what_was_typed_is_what_is_named(
    idl: Idl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, says: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    line = refused(idl, tmp_path, typed.split())
    assert line.startswith(says)
    assert "hydra.run.dir" not in line


@pytest.mark.parametrize(
    "value",
    ["~/x.npz", "naïve.npz", "数据.npz", "a=b.npz", "a#b.npz", "my data (1).npz", "a{1}.npz"],
)
def test_a_value_is_taken_as_it_was_typed(idl: Idl, tmp_path: Path, value: str) -> None:
    line = refused(idl, tmp_path, ["train", "data=arrays", f"data.path={value}"])
    assert f"{Path(value).expanduser()} does not exist" in line


@pytest.mark.parametrize(
    ("typed", "word"),
    [("data.path=[x].npz", 'data.path="[x].npz"'), ("name=a(b)", 'name="a(b)"')],
)
def test_what_may_be_a_mistake_is_shown_as_it_is_to_be_typed(
    idl: Idl, tmp_path: Path, typed: str, word: str
) -> None:
    assert refused(idl, tmp_path, ["train", typed]).endswith(f"type '{word}'")
    assert quoted_where_needed([word], sweep=False) == [word]  # and so it can be read


def test_each_value_of_a_sweep_is_quoted_alone() -> None:
    assert quoted_where_needed(["name=é,b"], sweep=True) == ['name="é",b']
    assert quoted_where_needed(["name=é,b"], sweep=False) == ['name="é,b"']
    assert quoted_where_needed(["seed=1,2", "~model"], sweep=True) == ["seed=1,2", "~model"]


FILES = {
    "tab": ("# @package _global_\nmodel:\n\thidden_dim: 3\n", "line 3: a tab"),
    "empty": ("", " is empty"),
    "list": ("- a\n- b\n", "line 1: it must have settings, as 'seed: 1', and is a list"),
    "words": ("just words\n", "and is 'just words'"),
    "package": ("seed: 3\n", "line 1: '# @package _global_' is missing"),
    "broken": ("# @package _global_\nmodel: {hidden_dim: [\n", ", line 3: "),
    "twice": ("# @package _global_\nseed: 1\nseed: 2\n", "line 3: found duplicate key seed"),
    "latin": ("# @package _global_\nname: \udce9\n", "line 2: it is not UTF-8 text"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_of_the_user_is_named(idl: Idl, tmp_path: Path, name: str) -> None:
    text, says = FILES[name]
    file = tmp_path / "mine" / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    line = refused(idl, tmp_path, ["train", "--config-dir=mine", f"experiment={name}"])
    assert line.startswith(f"mine/experiment/{name}.yaml")
    assert says in line


def test_paths_are_where_the_command_was_typed(idl: Idl, arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(arrays.read_bytes())
    answer = idl("train", "data=arrays", "data.path=mine.npz", *FEW, "hydra.job.chdir=true")
    assert answer.code == 0, answer.err
    assert (tmp_path / answer.run / "summary.json").exists()
