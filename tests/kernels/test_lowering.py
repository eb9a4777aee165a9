"""The programs compile for an H100, and fit on it: ptxas needs no GPU for that."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idl_core.kernels.triton.support import NO_TRITON

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernel_resources.py"


def ptxas() -> bool:
    found = importlib.util.find_spec("triton")
    if NO_TRITON is not None or found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "backends/nvidia/bin/ptxas").exists()


@pytest.mark.skipif(not ptxas(), reason="triton's ptxas is not here")
def test_each_program_lowers_and_fits() -> None:
    some = "n 100, forward|n 20, k 22, adjoint, ieee|8 rows, forward, ieee|r 4, adjoint, ieee"
    command = [sys.executable, str(SCRIPT), "--json", "--only", some]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 5
    for row in rows:
        assert row["shared"] <= 227 * 1024, row
        assert row["stack"] <= 64, row  # next to nothing is spilled
        if "ieee" in row["program"]:
            assert row["mma"] == 0, row  # no tensor core, which would round to TF32
        else:
            assert row["mma"] > 0, row
    held = next(row for row in rows if row["program"].startswith("dense on chip"))
    assert held["shared"] >= 128 * 128 * 4  # A is on chip


@pytest.mark.skipif(not ptxas(), reason="triton's ptxas is not here")
def test_no_more_shared_memory_is_taken_than_was_counted() -> None:
    """On cards smaller than an H100 too: else a launch raises where torch could have solved."""
    code = (
        "import kernel_resources as resources\n"
        "from idl_core.kernels.triton import chain, sizes\n"
        "resources.ARCHITECTURE = 89\n"
        "cut = sizes.of_chain(16, 128) | {'CARRY': True, 'PHI': 'relu', 'ADJOINT': False}\n"
        "cut['PRECISION'] = 'ieee'\n"
        "row = resources.compiled(chain.solve_chain, cut, {'POINT'})\n"
        "print(row['shared'], sizes.shared(16, 128))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(SCRIPT.parent), *sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    taken, counted = map(int, done.stdout.split())
    assert 4 * (16 + 128) ** 2 < taken <= counted <= 99 * 1024
