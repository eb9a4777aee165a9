"""The Triton programs' tests: on a GPU where there is one, else what the programs compile to, run
in NumPy (`ttir/`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from idl_core.equilibrium import flush_warnings
from idl_core.kernels import available
from idl_core.kernels.triton import support

# The suite is collected by importlib, which puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

ON_GPU = available()["triton"] == "yes"
OF_PROGRAMS = {
    f"test_{name}.py"
    for name in ("dense", "iterates", "low_rank", "recurrent", "ttir", "with_torch")
}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    without = support.NO_TRITON is not None and collection_path.name in OF_PROGRAMS
    return True if without else None


@pytest.fixture(scope="session")
def _launchers() -> dict[object, object]:
    """Module -> what takes the place of its program: compiled once a session."""
    from ttir import Launcher

    from idl_core.kernels.triton import chain, low_rank, streamed

    return {
        chain: Launcher(chain.solve_chain),
        low_rank: Launcher(low_rank.solve_low_rank),
        streamed: Launcher(streamed.solve_streamed),
    }


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the programs run: "cuda" or, without a GPU, "cpu" with their TTIR in their place."""
    if ON_GPU:
        return "cuda"
    for module, launcher in request.getfixturevalue("_launchers").items():
        monkeypatch.setattr(module, launcher.name, launcher)
    monkeypatch.setattr(support, "_obstacles", {"cpu": None})
    return "cpu"


@pytest.fixture(autouse=True)
def _warnings_stay_with_their_test() -> Iterator[None]:
    """What a solve on a GPU has to say is said in the test that it is of, which has failed to
    expect it, and not in the next."""
    yield
    flush_warnings()
