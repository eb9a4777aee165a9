"""Names, places, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from idl_datasets import default_root, is_ready, load, names, needs_path

NAMES = [
    *("digits", "mnist", "fashion_mnist", "cifar10", "image_folder", "arrays"),
    *("spiky", "timeseries", "shakespeare", "text", "pydoc"),
]


def test_names_have_one_line_of_help() -> None:
    assert list(names()) == NAMES
    for line in names().values():
        assert line
        assert "\n" not in line
        assert "offline" in line or "downloads" in line


def test_an_unknown_name_gets_a_close_match(fails: Callable[..., Any]) -> None:
    with fails("'fashion_mnits'", "Did you mean 'fashion_mnist'?"):
        load("fashion_mnits")
    with fails("'zzz'", ", ".join(NAMES)):
        load("zzz")
    with fails("'cifar'", "Did you mean 'cifar10'?"):
        is_ready("cifar")


@pytest.mark.parametrize("name", ["image_folder", "arrays"])
def test_users_data_need_a_path(name: str, fails: Callable[..., Any]) -> None:
    assert needs_path(name)
    assert not is_ready(name)
    with fails(name, "data.path", "x_train" if name == "arrays" else "train/<class>/*"):
        load(name)


def test_a_path_that_would_be_ignored_is_refused(fails: Callable[..., Any]) -> None:
    assert not needs_path("digits")
    with fails("digits takes no path", "mine.npz", "arrays"):
        load("digits", path="mine.npz")


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IDL_DATA_ROOT", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.setenv("IDL_DATA_ROOT", "~/data")
    assert default_root() == Path.home() / "data"
    for unset in (lambda: monkeypatch.setenv("IDL_DATA_ROOT", ""), monkeypatch.undo):
        unset()
        monkeypatch.delenv("IDL_DATA_ROOT", raising=False)
        assert default_root() == Path(platformdirs.user_cache_dir("idl", appauthor=False))


def test_the_root_is_where_files_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    write_mnist: Callable[..., Path],
    mnist_arrays: dict[str, Any],
) -> None:
    assert is_ready("digits", tmp_path)
    assert not is_ready("mnist", tmp_path)
    raw = write_mnist(tmp_path, mnist_arrays)
    assert is_ready("mnist", tmp_path)
    assert not is_ready("fashion_mnist", tmp_path)
    monkeypatch.setenv("IDL_DATA_ROOT", str(tmp_path))
    assert is_ready("mnist")
    assert len(load("mnist", val_fraction=0).train) == 40
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    assert not is_ready("mnist")


def test_what_is_not_used_is_not_imported() -> None:
    code = (
        "import sys, idl_datasets as d; d.names(); d.is_ready('mnist'); d.is_ready('cifar10');"
        "d.load('digits');"
        "print(sorted({'torchvision', 'sklearn', 'PIL', 'idl_core', 'idl_cli'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
