"""Reading a run directory: any metric or setting of it by its key.

A thousand of them are read in about a second, so nothing is parsed that no one asked for:
config.yaml only for a key that summary.json does not answer, and of it only the group in question.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from idl_cli.record.metrics_reader import is_number, last_metrics
from idl_cli.record.run_directory import own_words

MISSING: Any = object()  # "this run has no such key": None is a value that a configuration can hold

HEADLINE_METRICS = ("accuracy", "perplexity", "mse", "loss")  # the first that a split has

# The C parser is ten times faster; it is absent where PyYAML was built without libyaml.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_STARTED = re.compile(r"(\d{4}-\d{2}-\d{2})[_T](\d{2})[-:](\d{2})[-:](\d{2})")


@dataclass
class RunRecord:
    """One run directory. `path` is as the user would type it."""

    path: Path
    summary: dict[str, Any]
    status: str  # as in summary.json, or "unfinished" (there is none) or "damaged" (unreadable)

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read summary.json, or, of a run that wrote none yet, the end of metrics.jsonl."""
        try:
            text = (path / "summary.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path, last_metrics(path / "metrics.jsonl"), "unfinished")
        except (OSError, UnicodeDecodeError):
            return cls(path, {}, "damaged")
        try:
            summary = json.loads(text)
        except (ValueError, RecursionError):
            return cls(path, {}, "damaged")
        if not isinstance(summary, dict) or not isinstance(summary.get("status"), str):
            return cls(path, {}, "damaged")
        return cls(path, summary, summary["status"])

    def value(self, key: str) -> Any:
        """The value under a column name or a dotted path, or MISSING.

        Columns of the table come first, then summary.json, then config.yaml.
        """
        if key in COLUMN_VALUES:
            return COLUMN_VALUES[key](self)
        value = _walk(self.summary, key)
        return self.setting(key) if value is MISSING else value

    def setting(self, key: str) -> Any:
        """The value at a dotted path of config.yaml, or MISSING."""
        return _walk(self._settings(key.partition(".")[0]), key)

    def keys(self) -> set[str]:
        """Every key that `value` answers with a single value."""
        return {*COLUMN_VALUES, *leaves(self.summary), *leaves(self.config)}

    def name_of(self, group: str) -> Any:
        """The name of the chosen option of a group (model, data).

        An evaluation has the model, and unless it chose another the data, of the run it is of.
        """
        for name in (self.setting(f"{group}.name"), _walk(self.summary, f"evaluated.{group}")):
            if isinstance(name, str):
                return name
        evaluated = _walk(self.summary, "evaluated.run")
        if isinstance(evaluated, str) and Path(evaluated) != self.path:
            return RunRecord.read(Path(evaluated)).setting(f"{group}.name")
        return MISSING

    def headline(self, split: str) -> tuple[str, Any]:
        """The name and value of the metric that one looks at first, e.g. ("accuracy", 0.97)."""
        metrics = self.summary.get(split)
        if isinstance(metrics, dict):
            for name in HEADLINE_METRICS:
                if is_number(metrics.get(name)):
                    return name, metrics[name]
        return "", MISSING

    @cached_property
    def started(self) -> str:
        """When the run began, "2025-11-21 09:56:12": recorded, else by its folder's name or age."""
        for text in (self.summary.get("started"), *self._folder_names()):
            if isinstance(text, str) and (found := _STARTED.search(text)):
                return "{} {}:{}:{}".format(*found.groups())
        for name in ("overrides.yaml", "config.yaml", "summary.json", ""):
            with contextlib.suppress(OSError):
                seconds = (self.path / name).stat().st_mtime
                return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
        return ""

    @cached_property
    def overrides(self) -> list[str]:
        """What was typed."""
        return read_overrides(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The whole configuration; empty where config.yaml is absent or cannot be read."""
        return _mapping(self._config_text)

    @cached_property
    def _config_text(self) -> str:
        return config_text(self.path)

    def _settings(self, group: str) -> dict[str, Any]:
        """At least the top-level entry `group` of the configuration."""
        if "config" in self.__dict__:
            return self.config
        if group not in self._groups:
            part = _mapping(_group_text(self._config_text, group))
            self._groups[group] = part if group in part else self.config
        return self._groups[group]

    @cached_property
    def _groups(self) -> dict[str, dict[str, Any]]:
        return {}

    def _folder_names(self) -> tuple[str, ...]:
        # A job of a sweep is a numbered folder below the sweep's own, which has the date.
        return self.path.name, self.path.absolute().parent.name


COLUMN_VALUES: dict[str, Callable[[RunRecord], Any]] = {
    "run": lambda run: str(run.path),
    "status": lambda run: run.status,
    "model": lambda run: run.name_of("model"),
    "data": lambda run: run.name_of("data"),
    "overrides": lambda run: " ".join(run.overrides),
    "val": lambda run: run.headline("val")[1],
    "test": lambda run: run.headline("test")[1],
    "wall": lambda run: run.summary.get("wall_s", MISSING),
    "started": lambda run: run.started,
}


def read_overrides(directory: Path) -> list[str]:
    """What was typed for a run; nothing where that is absent or cannot be read."""
    try:
        typed = yaml.load((directory / "overrides.yaml").read_bytes(), Loader=_Loader)
    except (OSError, yaml.YAMLError):
        return []
    return own_words([str(word) for word in typed]) if isinstance(typed, list) else []


def config_text(run: Path) -> str:
    """config.yaml as text; empty where it is absent or cannot be read."""
    try:
        return (run / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _group_text(text: str, group: str) -> str:
    """The lines of one top-level entry of a YAML mapping in block style, or nothing.

    In block style whatever belongs to an entry is indented, or a list's dash.
    """
    lines = iter(text.splitlines(keepends=True))
    for line in lines:
        if line.startswith(f"{group}:"):
            part = [line]
            for following in lines:
                if following[0] not in " -#\r\n":
                    break
                part.append(following)
            return "".join(part)
    return ""


def _mapping(text: str) -> dict[str, Any]:
    try:
        loaded = yaml.load(text, Loader=_Loader) if text else {}
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _walk(tree: Any, key: str) -> Any:
    """The value at a dotted path, or MISSING; a mapping is not a value."""
    for name in key.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return MISSING
        tree = tree[name]
    return MISSING if isinstance(tree, dict) else tree


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all values in nested mappings."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def as_number(value: Any) -> float | None:
    """A value as a finite number, also where it is text; None where it is none."""
    if value is MISSING or value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def json_value(value: Any) -> Any:
    """A value for JSON: NaN and MISSING become null."""
    if isinstance(value, dict):
        return {key: json_value(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [json_value(entry) for entry in value]
    if value is MISSING or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, int | float | str | None) else str(value)
