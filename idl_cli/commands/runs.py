"""`idl runs [dir]`: the table of runs, filtered and sorted by any of their keys."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idl_cli.display.run_table import METRIC_SPLITS, run_columns
from idl_cli.display.tables import print_table
from idl_cli.errors import InputError, close_match
from idl_cli.plain_arguments import Words, parse_words, wants_help
from idl_cli.record.finder import find_runs
from idl_cli.record.query import as_text, check_keys, parse_conditions, sort_runs
from idl_cli.record.reader import COLUMN_VALUES, MISSING, RunRecord, json_value, leaves

USAGE = """\
usage: idl runs [dir] [--sort KEY] [--where CONDITIONS] [--limit N] [--json | --csv]

The runs in dir (default: runs) and below it, newest first.

  --sort KEY           smallest first; --sort -KEY: largest first
  --where CONDITIONS   KEY OPERATOR VALUE, with >= <= == != > <; several joined by commas, or
                       --where given again, must all hold. Quote it: the shell reads > otherwise.
  --limit N            at most N runs, counted after sorting
  --json, --csv        every metric, for programs, on stdout

KEY is a column (run, status, model, data, overrides, val, test, wall, started) or the path of any
entry of a run's summary.json or config.yaml: test.accuracy, wall_s, optimizer.lr.
A run is "unfinished" that has no summary.json: it is still running, or it was killed.

  idl runs --sort -test.accuracy --limit 5
  idl runs runs/train --where "model.hidden_dim>=100,status==completed"
"""

_RECORD_KEYS = ("run", "status", "model", "data", "overrides", "started")
_CSV_KEYS = (*_RECORD_KEYS, "epochs", "steps", "parameters", "wall_s")


def main(arguments: Sequence[str]) -> int:
    """Run `idl runs`. Raises: InputError for an unknown option, key or folder."""
    if wants_help(arguments):
        print(USAGE, end="")
        return 0
    words = parse_words(arguments, flags=("json", "csv"), options=("sort", "where", "limit"))
    if words.flags == {"json", "csv"}:
        raise InputError("--json and --csv are two formats: give one of them.")
    limit = _limit(words.last("limit"))
    sort = words.last("sort") or "-started"
    conditions = parse_conditions(words.options.get("where", ()))
    folder = _folder(words)
    runs = find_runs(folder)
    asked = list(dict.fromkeys([sort.lstrip("-"), *(each.key for each in conditions)]))
    check_keys(asked, runs)
    chosen = [run for run in runs if all(each.holds(run) for each in conditions)]
    chosen = sort_runs(chosen, sort.lstrip("-"), descending=sort.startswith("-"))[:limit]

    if "json" in words.flags:
        # One line a run: indented JSON is written by Python's slow encoder.
        lines = (json.dumps(_record(run, asked), allow_nan=False) for run in chosen)
        print("[" + ",\n ".join(lines) + "]")
    elif "csv" in words.flags:
        _write_csv(chosen, asked)
    elif chosen:
        print_table(run_columns(chosen, asked))
    else:
        print(_nothing(folder, len(runs)), file=sys.stderr)
    return 0


def _limit(typed: str | None) -> int | None:
    if typed is None:
        return None
    if not typed.isdecimal() or int(typed) == 0:
        raise InputError(f"--limit {typed}: it is a whole number from 1 on.")
    return int(typed)


def _folder(words: Words) -> Path:
    if len(words.plain) > 1:
        raise InputError(f"idl runs takes one folder, and got {len(words.plain)}: {words.plain}")
    folder = Path(words.plain[0] if words.plain else "runs")
    if folder.is_dir() or not words.plain:
        return folder
    key, given, value = words.plain[0].partition("=")
    if given and key in ("sort", "where", "limit"):
        raise InputError(f"'{words.plain[0]}': write it --{key} '{value}'.")
    if folder.exists():
        raise InputError(f"'{folder}' is a file; idl runs takes a folder that has runs below it.")
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    names = [str(path) for path in beside if path.is_dir()]
    raise InputError(f"there is no folder '{folder}'.{close_match(str(folder), names)}")


def _nothing(folder: Path, runs: int) -> str:
    if runs:
        return f"none of the {runs} runs in {folder} fulfils the conditions"
    return f"no runs in {folder} yet: idl train makes the first"


def _record(run: RunRecord, asked: Sequence[str]) -> dict[str, Any]:
    """One run for --json: the columns, all of summary.json, and the other keys that were asked."""
    record: dict[str, Any] = {key: run.value(key) for key in _RECORD_KEYS}
    record["overrides"] = run.overrides
    record.update({key: value for key, value in run.summary.items() if key not in record})
    known = {*leaves(run.summary), *COLUMN_VALUES}
    record.update({key: run.value(key) for key in asked if key not in known})
    return {key: json_value(value) for key, value in record.items()}


def _write_csv(runs: Sequence[RunRecord], asked: Sequence[str]) -> None:
    metrics = {
        key
        for run in runs
        for key in leaves(run.summary)
        if key.partition(".")[0] in METRIC_SPLITS and "." in key
    }
    keys = list(_CSV_KEYS) + sorted(metrics)
    keys += [key for key in asked if key not in keys and key not in COLUMN_VALUES]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(keys)
    for run in runs:
        values = (run.value(key) for key in keys)
        writer.writerow(["" if value is MISSING else as_text(value) for value in values])
