"""The Triton programs' tests: on a GPU where there is one, else through Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, and another test may have imported it without:
`test_interpreted.py` runs these in a process of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from idl_core.kernels import available

# The suite is collected by importlib, which puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

RUNS_HERE = available()["triton"] == "yes"
_ELSEWHERE = {
    f"test_{name}.py"
    for name in ("interpreted", "choice", "late_warnings", "lowering", "gpu_benchmark")
}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    of_programs = collection_path.suffix == ".py" and collection_path.name not in _ELSEWHERE
    return True if of_programs and not RUNS_HERE else None


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
