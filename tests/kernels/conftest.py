"""The Triton programs' tests: on a GPU where there is one, else through Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, and another test may have imported it without:
`test_interpreted.py` runs these in a process of their own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from idl_core.kernels import available

# The suite is collected by importlib, which puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

RUNS_HERE = available()["triton"] == "yes"
_ELSEWHERE = {
    f"test_{name}.py"
    for name in (
        "interpreted",
        "backend",
        "late_warnings",
        "lowering",
        "gpu_benchmark",
        "samples",
        "memory",
        "kept_code",
        "own_activations",
    )
}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    of_programs = collection_path.suffix == ".py" and collection_path.name not in _ELSEWHERE
    return True if of_programs and not RUNS_HERE else None


def _look_once_a_launch() -> None:
    """Have the interpreter look for what it replaces in triton.language once a launch and function,
    not in each call of a function: that is 40 % of what it does."""
    from triton.runtime import interpreter

    launch, seen = interpreter.GridExecutor.__call__, set()

    def launch_anew(self: Any, *arguments: Any, **options: Any) -> None:
        seen.clear()
        launch(self, *arguments, **options)

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if self not in seen:
            seen.add(self)
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*arguments, **options)

    interpreter.GridExecutor.__call__ = launch_anew
    interpreter.InterpretedFunction.__call__ = call


if RUNS_HERE and os.environ.get("TRITON_INTERPRET") == "1":
    _look_once_a_launch()


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
