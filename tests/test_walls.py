"""The rooms inside idl_cli: who may import whom, and how large a room, a folder, a call may be."""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from idl_cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
CLI = ROOT / "idl_cli"

# Room -> rooms that it may import; the files of idl_cli itself are everybody's.
ROOMS = {
    "": {"processes"},  # main, above them all
    "commands": {"hydra_app", "jobs", "config", "record", "processes", "display"},
    "hydra_app": {"jobs", "config", "record", "processes", "display"},
    "jobs": {"config", "record", "processes", "display"},
    "display": {"record", "config"},
    "record": {"config"},
    "processes": {"config"},
    "config": set(),
}
# Of these hydra_app may know what a job is asked and how it ended, and nothing else.
HYDRA_KNOWS_OF_JOBS = {"idl_cli.jobs.request"}
# Package -> rooms that may import it.
HOMES = {
    "hydra": {"hydra_app"},
    "omegaconf": {"hydra_app", "commands"},  # commands: the type of what Hydra hands them
    "wandb": {"record"},
    "rich": {"display"},
    "matplotlib": {"display", "commands"},  # commands: a type
}
MOST_FILES, MOST_ARGUMENTS = 14, 8

# Signatures that the seeds, or what they were taken from, promise; operators and programs that take
# arrays one by one.
PROMISED = {
    "idl_core/models/implicit.py: __init__",
    "idl_core/models/gpt.py: __init__",
    "idl_core/models/implicit_attention.py: __init__",
    "idl_core/sim/solvers/admm.py: __init__",
    "idl_core/sim/solvers/cvx.py: __init__",
}
PROGRAMS = ("idl_core/kernels/triton/", "idl_core/kernels/numba/programs/")

FILES = sorted(CLI.rglob("*.py"))
ALL_FILES = [
    path for room in ("idl_core", "idl_cli", "datasets") for path in (ROOT / room).rglob("*.py")
]


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__").replace("datasets", "idl_datasets", 1)


MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Absolute names of what a file imports, anywhere in it: modules where there are such."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {full if full in MODULES else str(node.module) for full in whole.values()}
    return names


def folder_of(module: str) -> str:
    return module.rpartition(".")[0]


def room_of(path: Path) -> str:
    parts = path.relative_to(CLI).parts
    return parts[0] if len(parts) > 1 else ""


def test_the_rooms_are_these() -> None:
    folders = {path.parent.name for path in CLI.glob("*/__init__.py")}
    assert folders == set(ROOMS) - {""}
    commands = {path.stem for path in (CLI / "commands").glob("*.py")} - {"__init__"}
    assert commands == set(COMMANDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CLI)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(path)
    for name in imported(path):
        package = name.partition(".")[0]
        if package == "idl_cli" and name in MODULES:
            other = room_of(MODULES[name])
            assert not other or other == room or other in ROOMS[room], name
            if (room, other) == ("hydra_app", "jobs"):
                assert name in HYDRA_KNOWS_OF_JOBS
        elif package in HOMES:
            assert room in HOMES[package], name


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The names along one circle of arrows; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        found = next((c for other in arrows[name] if (c := walk(other, [*path, name]))), [])
        done.add(name)
        return found

    return next((found for name in list(arrows) if (found := walk(name, []))), [])


def test_there_is_no_circle_of_files_or_folders() -> None:
    files: dict[str, set[str]] = defaultdict(set)
    folders: dict[str, set[str]] = defaultdict(set)
    for name, path in MODULES.items():
        files[name] |= {other for other in imported(path) if other in MODULES}
        # What stands beside the rooms belongs to none; only main stands above them.
        pairs = itertools.product([name], files[name])
        inside = {(folder_of(a), folder_of(b)) for a, b in pairs if room_of(MODULES[b])}
        for here, there in inside:
            folders[here] |= {there} - {here}
    assert circle(files) == []
    assert circle(folders) == []


def test_there_is_no_circle_of_files_in_the_library() -> None:
    everywhere = {module_of(path): path for path in ALL_FILES}
    files: dict[str, set[str]] = {}
    for name, path in everywhere.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                base = node.module
                if node.level:  # of a package's own file, the first dot is the package
                    above = node.level - (path.name == "__init__.py")
                    parts = name.split(".")
                    base = ".".join([*parts[: len(parts) - above], node.module])
                found |= {
                    full if (full := f"{base}.{alias.name}") in everywhere else base
                    for alias in node.names
                }
        files[name] = {other for other in found if other in everywhere and other != name}
    assert sum(map(len, files.values())) > 500
    assert circle(files) == []


def test_a_circle_is_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set[str]()}
    assert circle(arrows) == ["b", "c"]


def test_no_folder_is_too_full() -> None:
    folders = {path.parent for path in ALL_FILES}
    counts = {str(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def arguments(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file with the number of arguments that a caller can give."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            own = [name for name in names if name.arg not in ("self", "cls")]
            yield getattr(node, "name", "lambda"), len(own)


def test_no_function_takes_too_many_arguments() -> None:
    short = {path: str(path.relative_to(ROOT)) for path in ALL_FILES}
    counts = {
        f"{name}: {function}": n
        for path, name in short.items()
        if not name.startswith(PROGRAMS)
        for function, n in arguments(path)
    }
    assert {name for name, n in counts.items() if n > MOST_ARGUMENTS} <= PROMISED
