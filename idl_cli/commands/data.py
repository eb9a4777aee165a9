"""`idl data list` and `idl data prepare <name>`: the data sets, and downloading or reading one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idl_cli.config.typed_settings import home_is_known
from idl_cli.display.loading import loading_shown
from idl_cli.display.tables import Column, print_table
from idl_cli.errors import InputError, close_match
from idl_cli.plain_arguments import parse_settings, wants_help

if TYPE_CHECKING:
    from idl_datasets import Dataset

USAGE = """\
usage: idl data list [root=<dir>]
       idl data prepare <name> [root=<dir>] [path=<file or folder>]

list      the data sets, and which of them are ready
prepare   download or read one now, verify it, and say what it holds

  root=   where downloaded data is kept (default: $IDL_DATA_ROOT, else the user's cache folder)
  path=   the user's own data, for data sets that have no source of their own

  idl data prepare mnist
  idl data prepare image_folder path=photos.zip
"""

_ACTIONS = ("list", "prepare")


def main(arguments: Sequence[str]) -> int:
    """Run `idl data`. Raises: InputError for an unknown action, data set or key, or bad data."""
    if not arguments or wants_help(arguments):
        print(USAGE, end="")
        return 0
    # `idl train` calls them data.root and data.path, and so do the errors of a data set.
    words = [word.removeprefix("data.") for word in arguments]
    plain, settings = parse_settings(words, keys=("root", "path"))
    action = plain[0] if plain else ""
    if action not in _ACTIONS:
        raise InputError(
            f"idl data does not know '{action}'.{close_match(action, _ACTIONS)} "
            "It is idl data list or idl data prepare <name>."
        )
    for key in ("root", "path"):
        home_is_known(settings.get(key, ""), key)
    root = Path(settings["root"]).expanduser() if "root" in settings else None
    if action == "list":
        if len(plain) > 1 or "path" in settings:
            raise InputError("idl data list takes nothing but root=<dir>.")
        _list(root)
        return 0
    if len(plain) != 2:
        raise InputError("idl data prepare takes one data set: idl data prepare mnist")
    path = Path(settings["path"]).expanduser() if "path" in settings else None
    _prepare(plain[1], root, path)
    return 0


def _list(root: Path | None) -> None:
    import idl_datasets

    folder = root or idl_datasets.default_root()
    rows = []
    for name, what in idl_datasets.names().items():
        if idl_datasets.needs_path(name):
            rows.append((name, "with path=", "yes", "your path=", what))
        elif _embedded(name):
            rows.append((name, "yes", "yes", "embedded", what))
        else:
            ready = idl_datasets.is_ready(name, root)
            offline = "yes" if ready else "once ready"
            rows.append((name, "yes" if ready else "no", offline, str(folder), what))
    names, ready_cells, offline_cells, where, whats = map(list, zip(*rows, strict=True))
    columns = [
        Column("name", names),
        Column("ready", ready_cells),
        Column("offline", offline_cells, spare=1),
        Column("where", where, spare=2),  # said again below the table
        Column("what", whats, wraps=True),
    ]
    print_table(columns)
    print()
    print(f"Downloads are kept in {folder}")
    print("(root=<dir> or $IDL_DATA_ROOT changes that); idl data prepare <name> makes one ready.")


def _embedded(name: str) -> bool:
    """Whether a data set comes with idl: it is ready even where there can be no folder for it."""
    import idl_datasets

    return idl_datasets.is_ready(name, Path(os.devnull))


def _prepare(name: str, root: Path | None, path: Path | None) -> None:
    import idl_datasets

    try:
        with loading_shown() as progress:
            dataset = idl_datasets.load(name, root=root, path=path, progress=progress)
    except idl_datasets.DatasetError as error:
        raise InputError(str(error)) from error
    where = "" if _embedded(name) else f" in {path or root or idl_datasets.default_root()}"
    print(f"{name}: ready{where}, and verified")
    print(f"task: {dataset.task}, {_outputs(dataset)}")
    print(f"content: {dataset.digest}")
    for note in dataset.notes:
        print(f"note: {note}")
    print()
    print_table(_split_columns(dataset))


def _outputs(dataset: Dataset) -> str:
    if dataset.task == "language":
        return f"{dataset.output_dim:,} different tokens"
    if not dataset.class_names:
        return f"{dataset.output_dim} targets"
    names = ", ".join(dataset.class_names[:10])
    more = ", ..." if len(dataset.class_names) > 10 else ""
    return f"{len(dataset.class_names)} classes: {names}{more}"


def _split_columns(dataset: Dataset) -> list[Column]:
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    there = {name: split for name, split in splits.items() if split is not None}
    sample = "×".join(str(size) for size in dataset.input_shape)
    types = [str(split.x.dtype).removeprefix("torch.") for split in there.values()]
    # Windows of a series or of a text overlap: they share their memory.
    sizes = [min(split.x.nbytes, split.x.untyped_storage().nbytes()) / 1e6
             for split in there.values()]  # fmt: skip
    return [
        Column("split", list(there)),
        Column("samples", [f"{len(split):,}" for split in there.values()], number=True),
        Column("sample", [sample] * len(there)),
        Column("type", types),
        Column("in memory", [f"{size:.1f} MB" for size in sizes], number=True),
    ]
