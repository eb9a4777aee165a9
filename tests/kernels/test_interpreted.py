"""The programs' own logic on the CPU: this folder's tests, in a process that interprets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from idl_core.kernels.triton.support import NO_TRITON

HERE = Path(__file__).parent
OF_PROGRAMS = [
    HERE / f"test_{name}.py" for name in ("dense", "low_rank", "recurrent", "with_torch")
]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")
@pytest.mark.skipif(torch.cuda.is_available(), reason="they run on the GPU")
@pytest.mark.skipif(NO_TRITON is not None, reason=str(NO_TRITON))
def test_the_programs_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *map(str, OF_PROGRAMS)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted to Python scalars" in done.stdout:
        pytest.skip("this Triton's interpreter is older than this NumPy")  # 3.6 and 2.4
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
