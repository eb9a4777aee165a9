"""The check of a machine with a GPU: its end where there is none, and its summary."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks/gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run for minutes")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/gpu_check.sh")],
        env=os.environ | {"PYTHON": sys.executable}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "gpu_check: no CUDA GPU that torch can use: nothing was checked.\n"
    assert not list(tmp_path.iterdir())


def test_each_part_says_how_it_ended(check: ModuleType, tmp_path: Path) -> None:
    def part(name: str, code: str, seconds: float = 30, obstacle: str | None = None) -> object:
        command = (sys.executable, "-S", "-c", code)
        return check.Part(name, command, seconds, 2, check.everything, obstacle)

    talkative = "print('\\n'.join(f'line {i}' for i in range(300)))"
    outcomes = [
        check.run(part("good", talkative), tmp_path, 60),
        check.run(part("bad", "print('why'); raise SystemExit(3)"), tmp_path, 60),
        check.run(part("endless", "import time; time.sleep(600)", 0.3), tmp_path, 60),
        check.run(part("barred", "", obstacle="not importable: torchidl"), tmp_path, 60),
        check.run(part("late", ""), tmp_path, 0.5),
    ]
    assert [one.status for one in outcomes] == ["passed", "failed", "stopped", "not run", "not run"]
    assert (tmp_path / "good.txt").read_text().count("line") == 300
    lines = check.summary("a card", outcomes, tmp_path).splitlines()
    assert lines[0] == "a card"
    assert lines[2:5] == ["    … 298 lines before these", "    line 298", "    line 299"]
    assert "exit 3" in lines[5]
    assert "it was not done after 0 s" in lines[7]
    assert lines[8] == "not run  barred, 0 s: not importable: torchidl"
    assert "the time was over" in lines[9]
    assert lines[-1] == f"all of it: {tmp_path}"
    assert len(check.summary("a card", outcomes * 40, tmp_path).splitlines()) == 100


def test_the_packages_are_this_checkouts(check: ModuleType, tmp_path: Path) -> None:
    names = ("idl_core", "idl_datasets")
    code = f"from importlib.util import find_spec; print(*[find_spec(n).origin for n in {names}])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=check.environment(tmp_path, "it"), cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [Path(path).resolve().parent for path in done.stdout.split()] == [
        ROOT / "idl_core", ROOT / "datasets",
    ]  # fmt: skip


def test_what_the_parts_run_is_there(check: ModuleType) -> None:
    parts = [part for stage in check.stages() for part in stage]
    paths = [one for part in parts for one in part.command if one.startswith(("tests/", "bench"))]
    assert len(paths) > len(parts)
    assert all((ROOT / path).exists() for path in paths)


def test_what_of_pytest_the_summary_has_room_for(check: ModuleType) -> None:
    wanted = (
        "3 failed, 5 passed in 2.31s",
        "FAILED tests/x.py::y - AssertionError",
        "12 passed in 1s",
    )
    assert all(map(check.of_tests, wanted))
    assert not check.of_tests("tests/kernels/test_dense.py ....")
    assert check.of_sanitizer("========= ERROR SUMMARY: 0 errors")
