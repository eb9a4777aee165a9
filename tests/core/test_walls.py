"""The rooms and who may know whom (docs/architecture.md: no circles, the core stands alone)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("idl", "idl_core", "idl_cli", "idl_datasets", "idl_conf")
ALLOWED = {
    "idl": {"idl_core"},
    "idl_core": set(),
    "idl_cli": {"idl_core", "idl_datasets"},
    "datasets": set(),
}
# Inside the core: room -> rooms it may import.
CORE = {
    "activations": set(),
    "perron_frobenius": set(),
    "wellposed": {"perron_frobenius"},
    "equilibrium": set(),
    "workers": set(),
    "peers": set(),
    "kernels": {"activations", "equilibrium"},
    "implicit_settings": {"activations", "kernels", "wellposed"},
    "functions": {"activations", "implicit_settings", "kernels", "equilibrium", "wellposed"},
    "models": {
        "activations",
        "equilibrium",
        "functions",
        "implicit_settings",
        "kernels",
        "wellposed",
    },
    "sim": {"activations", "equilibrium", "models", "peers", "wellposed", "workers"},
    "training": {"equilibrium"},
}


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        others = {n.split(".")[0] for n in imported(path)} & set(OURS)
        own = "idl_datasets" if room == "datasets" else room
        assert others - {own} <= ALLOWED[room], path


@pytest.mark.parametrize("room", CORE)
def test_rooms_of_the_core(room: str) -> None:
    folder = ROOT / "idl_core" / room
    files = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    for path in files:
        for name in imported(path):
            if name.startswith("idl_core."):
                other = name.split(".")[1]
                assert other == room or other in CORE[room], f"{path} imports {name}"


def test_core_needs_torch_and_numpy_alone() -> None:
    code = (
        "import sys, idl_core, idl\n"
        "heavy = {'hydra', 'omegaconf', 'wandb', 'rich', 'sklearn', 'cvxpy', 'torchvision'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
