"""`idl data list` and `idl data prepare`: on data that needs no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import idl_datasets
from idl_cli.main import main


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """An .npz of 40 train and 10 test samples with 6 features, of 2 classes."""
    draw = np.random.default_rng(0)
    path = tmp_path / "mine.npz"
    contents = {}
    for split, count in (("train", 40), ("test", 10)):
        contents[f"x_{split}"] = draw.normal(size=(count, 6)).astype(np.float32)
        contents[f"y_{split}"] = np.arange(count) % 2
    np.savez(path, **contents)
    return path


def test_list_names_every_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", f"root={tmp_path}"]) == 0
    output = capsys.readouterr().out
    for name, what in idl_datasets.names().items():
        line = next(line for line in output.splitlines() if line.startswith(f"{name} "))
        assert what in line
    cells = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert cells["digits"][1:4] == ["yes", "yes", "embedded"]
    assert cells["mnist"][1:5] == ["no", "once", "ready", str(tmp_path)]
    assert f"Downloads are kept in {tmp_path}" in output


def test_prepare_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "digits"]) == 0
    output = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    samples = sum(int(rows[split][1].replace(",", "")) for split in ("train", "val", "test"))
    assert samples == 1797
    assert rows["test"][2] == "1×8×8"
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in output


@pytest.mark.parametrize("key", ["path", "data.path"])
def test_prepare_one_s_own(arrays: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "arrays", f"{key}={arrays}"]) == 0
    output = capsys.readouterr().out
    assert f"arrays: ready in {arrays}" in output
    assert "2 classes" in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lst",), "Did you mean 'list'"),
        (("prepare",), "takes one data set"),
        (("prepare", "mnist", "digits"), "takes one data set"),
        (("prepare", "mnst"), "Did you mean 'mnist'"),
        (("prepare", "digits", "rot=x"), "Did you mean 'root'"),
        (("prepare", "digits", "root="), "has no value"),
        (("prepare", "arrays"), "path"),
        (("prepare", "arrays", "path=absent.npz"), "absent.npz"),
        (("list", "digits"), "nothing but root="),
        (("--prepare", "digits"), "unknown option '--prepare'"),
    ],
)
def test_wrong_input_is_one_line_and_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *arguments]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert says in output.err


def test_damaged_data_is_named(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays.write_bytes(arrays.read_bytes()[:200])
    assert main(["data", "prepare", "arrays", f"path={arrays}"]) == 2
    assert str(arrays) in capsys.readouterr().err
