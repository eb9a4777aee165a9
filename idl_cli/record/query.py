"""Filtering and sorting runs by any of their keys: `--where 'model.rank>=4' --sort -val.loss`.

A condition is `key operator value`; nothing that was typed is ever evaluated as code.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from idl_cli.errors import InputError, close_match
from idl_cli.record.reader import COLUMN_VALUES, MISSING, RunRecord, as_number

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,  # what hands used to `model.hidden_dim=100` type
}
_CONDITION = re.compile(r"\s*([^\s=!<>]+)\s*(>=|<=|==|!=|>|<|=)\s*(.*?)\s*", re.DOTALL)
# What is between commas; a comma in brackets or quotes is the value's own.
_CLAUSE = re.compile(r"""(?:[^,\["']|\[[^\]]*\]?|"[^"]*"?|'[^']*'?)+""")


@dataclass(frozen=True)
class Condition:
    """One comparison of a run's key with a value; a run without the key never fulfils it."""

    key: str
    operator: str
    wanted: str

    def holds(self, run: RunRecord) -> bool:
        """Whether the run fulfils it: as numbers where both are, else as text."""
        value = run.value(self.key)
        if value is MISSING:
            return False
        compare = _OPERATORS[self.operator]
        number, wanted = as_number(value), as_number(self.wanted)
        if number is not None and wanted is not None:
            return compare(number, wanted)
        if self.operator in ("==", "!=", "="):
            return compare(as_text(value), self.wanted)
        if wanted is not None or not isinstance(value, str):
            return False  # neither null nor NaN is more or less than a number
        return compare(value, self.wanted)


def parse_conditions(expressions: Iterable[str]) -> list[Condition]:
    """The conditions in `--where` expressions, several in one joined by commas; all must hold.

    Raises: InputError for an expression that is no comparison.
    """
    return [_condition(clause) for text in expressions for clause in _CLAUSE.findall(text) or [""]]


def _condition(clause: str) -> Condition:
    found = _CONDITION.fullmatch(clause)
    if not found or not found[3]:
        raise InputError(
            f"--where: no comparison in '{clause.strip()}'. It is KEY OPERATOR VALUE in quotes "
            f"(the shell reads > otherwise), with one of {' '.join(list(_OPERATORS)[:6])}: "
            "--where 'model.hidden_dim>=100,test.accuracy>0.9'"
        )
    key, symbol, wanted = found.groups()
    if len(wanted) > 1 and wanted[0] == wanted[-1] and wanted[0] in "\"'":
        wanted = wanted[1:-1]
    elif wanted[0] in "=<>!":
        raise InputError(f"--where: '{symbol}{wanted}' in '{clause.strip()}' is no comparison.")
    elif wanted[0] == "[":
        wanted = "".join(wanted.split())
    return Condition(key, symbol, wanted)


def as_text(value: Any) -> str:
    """A value as configurations and overrides spell it: null, true, [64,64]."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(as_text(entry) for entry in value)}]"
    return str(value)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts text with the numbers in it by their size: job 2 before job 10."""
    parts = re.findall(r"\d+|\D+", text, re.ASCII)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def check_keys(keys: Iterable[str], runs: Sequence[RunRecord]) -> None:
    """Check that every key is one that some run has.

    Raises: InputError naming the closest key that there is.
    """
    for key in keys:
        if key in COLUMN_VALUES or not runs:
            continue
        if all(run.value(key) is MISSING for run in runs):
            known = sorted(set().union(*(run.keys() for run in runs)))
            raise InputError(f"no run here has the key '{key}'.{_meant(key, known)}")


def _meant(key: str, known: list[str]) -> str:
    """A hint at the keys that end in or begin with what was typed, else at the closest."""
    inside = [name for name in known if name.endswith(f".{key}") or name.startswith(f"{key}.")]
    if inside:
        return f" Did you mean {' or '.join(map(repr, inside[:4]))}?"
    return close_match(key, known) or " Any key of summary.json or config.yaml will do."


def sort_runs(runs: Sequence[RunRecord], key: str, descending: bool) -> list[RunRecord]:
    """Runs by a key: numbers before text, and last, in either direction, those without a value."""
    with_value: list[tuple[tuple[bool, float, list[tuple[int, int, str]]], RunRecord]] = []
    without: list[RunRecord] = []
    for run in runs:
        value = run.value(key)
        number = as_number(value)
        if number is not None:
            with_value.append(((False, number, []), run))
        elif isinstance(value, str | bool | list):
            with_value.append(((True, 0.0, natural(as_text(value))), run))
        else:  # missing, null, NaN
            without.append(run)
    with_value.sort(key=lambda pair: pair[0], reverse=descending)
    return [run for _, run in with_value] + without
