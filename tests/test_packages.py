"""What the wheel holds: every folder with Python files, and what says that it is typed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]


def packages(name: str) -> set[str]:
    """The packages below the top-level package `name`: its folders that hold Python files."""
    top = ROOT / FOLDERS[name]
    folders = {path.parent.relative_to(top) for path in top.rglob("*.py")}
    return {".".join((name, *folder.parts)) for folder in folders}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_with_python_files_is_in_the_wheel(name: str) -> None:
    listed = {one for one in SETUPTOOLS["packages"] if one.split(".")[0] == name}
    assert listed == packages(name)


def test_every_package_has_a_top_level_folder() -> None:
    assert {one.split(".")[0] for one in SETUPTOOLS["packages"]} == set(FOLDERS)
    assert all((ROOT / folder).is_dir() for folder in FOLDERS.values())


@pytest.mark.parametrize("name", ["idl", "idl_core"])
def test_the_wheel_says_that_it_is_typed(name: str) -> None:
    assert "py.typed" in SETUPTOOLS["package-data"][name]
    assert (ROOT / FOLDERS[name] / "py.typed").read_bytes() == b""
