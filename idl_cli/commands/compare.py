"""`idl compare RUN RUN`: the settings that differ between runs, and how they ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from idl_cli.display.run_table import cell
from idl_cli.display.tables import Column, print_table
from idl_cli.errors import InputError
from idl_cli.plain_arguments import parse_words, wants_help
from idl_cli.record.finder import existing_run
from idl_cli.record.reader import MISSING, RunRecord, json_value, leaves

USAGE = """\
usage: idl compare RUN RUN [RUN ...] [--json]

The entries of config.yaml that differ between runs, and the metrics they ended with.
"""

_OWN = ("run_dir", "command")  # of summary.json: says where, not how it went


def main(arguments: Sequence[str]) -> int:
    """Run `idl compare`. Raises: InputError for fewer than two runs, or a folder that is none."""
    if wants_help(arguments):
        print(USAGE, end="")
        return 0
    words = parse_words(arguments, flags=("json",))
    if len(words.plain) < 2:
        raise InputError("idl compare takes two runs or more: idl compare RUN RUN")
    runs = [RunRecord.read(existing_run(typed, "")) for typed in words.plain]
    settings, outcome = differences(runs)
    if "json" in words.flags:
        _print_json(runs, settings, outcome)
    else:
        _print_tables(runs, settings, outcome)
    return 0


def differences(runs: Sequence[RunRecord]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """By key, the values of all runs: settings that differ, and every metric of the outcome."""
    keys = dict.fromkeys(key for run in runs for key in leaves(run.config))
    settings = {key: [run.setting(key) for run in runs] for key in keys}
    settings = {key: values for key, values in settings.items() if not _all_equal(values)}
    keys = dict.fromkeys(key for run in runs for key in ("status", *leaves(run.summary)))
    outcome = {key: [run.value(key) for run in runs] for key in keys if key not in _OWN}
    return settings, {key: values for key, values in outcome.items() if _is_shown(key, values)}


def _is_shown(key: str, values: Sequence[Any]) -> bool:
    """Status and metrics in any case; other facts (versions, device) where they differ.

    A run that wrote no summary lacks those: that is no difference.
    """
    if key == "status" or key.partition(".")[0] in ("train", "val", "test", "sim"):
        return True
    return MISSING not in values and not _all_equal(values)


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _print_json(
    runs: Sequence[RunRecord], settings: dict[str, list[Any]], outcome: dict[str, list[Any]]
) -> None:
    shown = {"runs": [str(run.path) for run in runs], "config": settings, "outcome": outcome}
    print(json.dumps(json_value(shown), indent=2, allow_nan=False))


def _print_tables(
    runs: Sequence[RunRecord], settings: dict[str, list[Any]], outcome: dict[str, list[Any]]
) -> None:
    # Run directories have long names: letters head the columns.
    letters = [chr(ord("a") + index % 26) * (1 + index // 26) for index in range(len(runs))]
    for letter, run in zip(letters, runs, strict=True):
        print(f"{letter}  {run.path}")
    for head, values in (("configuration", settings), ("outcome", outcome)):
        print()
        if not values:
            print(f"{head}: no difference")
            continue
        columns = [Column(head, list(values))]
        for index, letter in enumerate(letters):
            cells = [cell(key, row[index]) for key, row in values.items()]
            columns.append(Column(letter, cells, number=True, wraps=True))
        columns += _change(values) if head == "outcome" and len(runs) == 2 else []
        print_table(columns)


def _change(values: dict[str, list[Any]]) -> list[Column]:
    """The column b - a, for metrics."""
    cells = []
    for key, (before, after) in values.items():
        both = all(isinstance(value, int | float) for value in (before, after))
        change = after - before if both and not isinstance(before, bool) else 0
        shown = f"{change:+,}" if isinstance(change, int) else f"{change:+.4g}"
        cells.append(shown if change and key != "seed" else "")
    return [Column("b - a", cells, number=True)]
