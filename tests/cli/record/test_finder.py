"""A run directory that is not there: one line, found soon, whatever else is on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from idl_cli.errors import InputError
from idl_cli.record import finder
from idl_cli.record.finder import existing_run, find_runs

from ..conftest import MakeRun


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are read from now on."""
    folders: list[Path] = []
    scandir = os.scandir

    def noting(path: Any) -> Any:
        folders.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noting)
    return folders


def test_a_hint_reads_a_few_folders_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: list[Path]
) -> None:
    monkeypatch.setattr(finder, "_HINT_SECONDS", 1e9)  # the count alone, on any machine
    monkeypatch.setattr(finder, "_HINT_FOLDERS", 20)
    for number in range(60):
        (tmp_path / "much" / str(number)).mkdir(parents=True)
    for typed in ("much", "much/9x", "much/a/b"):
        scanned.clear()
        with pytest.raises(InputError, match=str(tmp_path)):
            existing_run(str(tmp_path / typed))
        assert len(scanned) <= 25  # below what was typed and around it, together


def test_a_hint_takes_a_tenth_of_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: list[Path]
) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(finder.time, "monotonic", lambda: 0.02 * next(now))
    for number in range(60):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(InputError, match="there is no such folder"):
        existing_run(str(tmp_path / "9x"))
    assert len(scanned) <= 8


@pytest.mark.parametrize("typed", ["/none/such", "/nonesuch"])
def test_the_whole_disk_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: list[Path], typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        existing_run(typed)
    assert Path("/") not in scanned


def test_an_error_of_the_hint_is_none(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("train/good")

    def refuse(self: Any) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(finder, "_is_folder", refuse)
    with pytest.raises(InputError, match="there is no such folder"):
        existing_run(str(tmp_path / "runs" / "train" / "goood"))


def test_the_nearest_run_is_still_named(make_run: MakeRun, tmp_path: Path) -> None:
    good = make_run("train/good")
    with pytest.raises(InputError, match=f"Did you mean '{good}'"):
        existing_run(str(tmp_path / "runs" / "train" / "godo"))


@pytest.mark.parametrize(
    ("typed", "says"),
    [("x" * 300, "File name too long"), ("~nobody-of-this-name/x", "cannot be read")],
)
def test_names_that_no_folder_can_have(typed: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        existing_run(typed)


def test_links_in_a_circle_are_no_folders(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("train/good")
    (tmp_path / "runs" / "loop").symlink_to("loop")
    assert len(find_runs(tmp_path / "runs")) == 1
