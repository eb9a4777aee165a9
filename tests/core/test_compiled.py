"""What numba compiles is kept on disk, and found there only where it is right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from idl_core.kernels.numba.programs import compiled

OUTER = """
import sys, time
import numpy as np
from compiled import IndexDataCacheFile, compiled
from inner import number

@compiled()
def times(x):
    return x * number()

def slowly(read):
    def read_slowly(self):
        index = read(self)
        time.sleep(0.5)
        return index
    return read_slowly

if __name__ == "__main__":
    if "slowly" in sys.argv:
        IndexDataCacheFile._load_index = slowly(IndexDataCacheFile._load_index)
    print(times(getattr(np, sys.argv[1])(10)), sum(times.stats.cache_hits.values()))
"""


def inner(number: int) -> str:
    return f"from compiled import compiled\n@compiled()\ndef number():\n    return {number}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a function that calls one of another file."""
    shutil.copy(compiled.__file__, tmp_path)
    (tmp_path / "outer.py").write_text(OUTER)
    (tmp_path / "inner.py").write_text(inner(2))
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(folder / "outer.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def printed(process: subprocess.Popen[str]) -> list[float]:
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return [float(word) for word in out.split()]


def test_a_change_in_another_file_is_compiled_anew(folder: Path) -> None:
    assert printed(start(folder, "float32")) == [20, 0]
    assert printed(start(folder, "float32")) == [20, 1]
    (folder / "inner.py").write_text(inner(3))
    assert printed(start(folder, "float32")) == [30, 0]


def test_two_processes_that_compile_at_once_keep_both(folder: Path) -> None:
    kinds = ("float32", "int64")
    for process in [start(folder, kind, "slowly") for kind in kinds]:
        assert printed(process) == [20, 0]
    for kind in kinds:
        assert printed(start(folder, kind)) == [20, 1]
