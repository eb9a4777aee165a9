"""`idl compare RUN RUN`: what differs is shown, what does not is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idl_cli.main import main


@pytest.fixture
def two(make_run: Any) -> tuple[Path, Path]:
    small = {"model": {"name": "implicit", "hidden_dim": 50, "rank": 4}, "seed": 0}
    large = {"model": {"name": "implicit", "hidden_dim": 100}, "seed": 0}
    a = make_run("a", config=small, test={"accuracy": 0.9}, device="cpu")
    b = make_run("b", config=large, test={"accuracy": 0.75}, device="cpu")
    return a, b


def test_differences(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--json", *map(str, two)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["runs"] == [str(path) for path in two]
    assert shown["config"] == {"model.hidden_dim": [50, 100], "model.rank": [4, None]}
    assert shown["outcome"]["test.accuracy"] == [0.9, 0.75]
    assert shown["outcome"]["status"] == ["completed", "completed"]
    assert "device" not in shown["outcome"]


def test_table(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, two)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["a", str(two[0])], ["b", str(two[1])]]
    assert ["model.hidden_dim", "50", "100"] in lines
    assert ["test.accuracy", "0.9000", "0.7500", "-0.15"] in lines


@pytest.mark.parametrize("count", [0, 1])
def test_two_runs_are_needed(
    two: tuple[Path, Path], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, two[:count])]) == 2
    assert "two runs" in capsys.readouterr().err


def test_what_is_no_run(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = two[0].parent
    assert main(["compare", str(two[0]), str(folder)]) == 2
    assert "is a folder of runs" in capsys.readouterr().err
    assert main(["compare", str(two[0]), str(two[0] / "config.yaml")]) == 2
    assert f"Its run is {two[0]}" in capsys.readouterr().err
    assert main(["compare", str(two[0]), str(two[0] / "figures")]) == 2
    assert "is no run" in capsys.readouterr().err
