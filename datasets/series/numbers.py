"""Numbers as people and spreadsheets write them; a column is written in one notation throughout."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DatasetError
from .table import Columns, Table

MISSING = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "nil", "missing", "-", "--", "?", ".", "nat",
     "#n/a", "#na", "#value!", "#ref!", "#div/0!", "#num!", "#null!", "#name?"}
)  # fmt: skip
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_BLANK = "[ '’\u00a0\u2009\u202f]"  # what stands between thousands beside point and comma
# Not float(): it takes 1_000 and the digits of every script.
_PLAIN = re.compile(rf"[+-]?(?:\d+\.?\d*|\.\d+){_EXPONENT}", re.ASCII)
_COMMA = re.compile(
    rf"[+-]?(?:\d+|\d{{1,3}}(?:(?:\.\d{{3}})+|(?:{_BLANK}\d{{3}})+))?(?:,\d*)?{_EXPONENT}",
    re.ASCII,
)
_GROUPED = re.compile(
    rf"[+-]?\d{{1,3}}(?:(?:,\d{{3}})+|(?:{_BLANK}\d{{3}})+)(?:\.\d*)?|{_PLAIN.pattern}", re.ASCII
)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})*", re.ASCII)
_SENTINELS = frozenset(sign * float(nines) for sign in (-1, 1) for nines in
                       ("99", "999", "9999", "99999", "999.9", "999999"))  # fmt: skip


@dataclass(frozen=True)
class _Notation:
    name: str
    fits: Callable[[str], object]
    number: Callable[[str], float]


def _remove(text: str, marks: str) -> str:
    return re.sub(f"{marks}", "", text)


PLAIN = _Notation("a decimal point", _PLAIN.fullmatch, float)
COMMA = _Notation(
    "a decimal comma",
    lambda text: re.search(r"\d", text) and _COMMA.fullmatch(text),
    lambda text: float(_remove(text, f"[.]|{_BLANK}").replace(",", ".")),
)
GROUPED = _Notation(
    "thousands apart",
    _GROUPED.fullmatch,
    lambda text: float(_remove(text, f",|{_BLANK}")),
)


def is_number(text: str) -> bool:
    """Whether a cell is a number in any notation."""
    text = text.strip()
    return any(notation.fits(text) for notation in (PLAIN, COMMA, GROUPED))


def column_of_numbers(
    table: Table, index: int, columns: Columns, cells: Sequence[str], notes: list[str]
) -> np.ndarray:
    """The numbers of a column, float64; how they were read is said unless it is plain.

    Raises DatasetError naming the row where one is missing or none.
    """
    where = f"{table.path}: column '{table.header[index]}'"
    notation = _notation(table, index, cells)
    values = np.empty(len(cells))
    for row, text in enumerate(cells):
        if not notation.fits(text):
            at = f"{where}, row {row + 1} (line {columns.lines[row]})"
            raise DatasetError(f"{at}: {_what_is_wrong(text)}")
        values[row] = notation.number(text)
        if math.isinf(values[row]):
            at = f"{where}, row {row + 1} (line {columns.lines[row]})"
            raise DatasetError(f"{at}: '{text[:40]}' is not a finite number.")
    if notation is not PLAIN:
        shown = next(text for text in cells if "," in text or not PLAIN.fits(text))
        notes.append(
            f"the numbers of column '{table.header[index]}' are written with {notation.name}: "
            f"'{shown}' is read as {notation.number(shown)!r}"
        )
    notes += _sentinels(table.header[index], values)
    return values


def _notation(table: Table, index: int, cells: Sequence[str]) -> _Notation:
    """The notation of a column: the one with the fewest cells that do not fit, plain first.

    Raises DatasetError where two of them fit and say different things.
    """
    misfits = sum(not PLAIN.fits(text) for text in cells)
    if misfits == 0:
        # 1.234 beside 5,6 in the same table is a thousand and some.
        others = [cell for other, cell in enumerate(table.first) if other != index]
        has_comma = table.separator != "," and any(
            re.fullmatch(r"[+-]?\d+,\d+", cell) for cell in others
        )
        groups = any("." in text for text in cells) and all(map(_THOUSANDS.fullmatch, cells))
        return COMMA if has_comma and groups else PLAIN
    counts = {
        PLAIN: misfits,
        COMMA: sum(not COMMA.fits(text) for text in cells),
        GROUPED: sum(not GROUPED.fits(text) for text in cells),
    }
    best = min(counts.values())
    fitting = [notation for notation, count in counts.items() if count == best]
    if COMMA in fitting and GROUPED in fitting and PLAIN not in fitting:
        readable = [text for text in cells if COMMA.fits(text) and GROUPED.fits(text)]
        differs = next((t for t in readable if COMMA.number(t) != GROUPED.number(t)), None)
        # Where a semicolon separates the cells, it does so because the comma is taken.
        if differs is not None and table.separator == ",":
            row = list(cells).index(differs)
            raise DatasetError(
                f"{table.path}: column '{table.header[index]}', row {row + 1}: '{differs}' is "
                f"{COMMA.number(differs)!r} or {GROUPED.number(differs)!r}: write it with a "
                "decimal point and nothing between thousands."
            )
        return COMMA
    return fitting[0]


def _what_is_wrong(text: str) -> str:
    if text.lower() in MISSING:
        return f"the value is missing{f' ({text})' if text else ''}: fill it in or remove the row."
    if text.lower().lstrip("+-") in ("inf", "infinity"):
        return f"'{text}' is not a finite number."
    return f"'{text[:40]}' is not a number."


def _sentinels(name: str, values: np.ndarray) -> list[str]:
    """What is said of -9999 and its like, far from all other values."""
    said = []
    for value in np.unique(values[np.isin(values, list(_SENTINELS))]):
        same = values == value
        others = np.abs(values[~np.isin(values, list(_SENTINELS))])
        if len(others) and abs(value) > 3 * others.max():
            row = int(same.argmax()) + 1
            said.append(
                f"{value:g} in column '{name}' often stands for a missing value (rows: "
                f"{int(same.sum()):,}, first {row})"
            )
    return said
