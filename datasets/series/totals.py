"""Rows of totals that spreadsheets have below their data: no values of a series."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from ..errors import DatasetError
from .table import Columns

_WORDS = re.compile(
    r"(grand )?(total|totals|sum|summe|gesamt|insgesamt|totale|somme|suma|average|mean|mittelwert|"
    r"durchschnitt|moyenne|media)\b.*",
    re.IGNORECASE,
)
_ENOUGH = 6  # rows: of fewer the last may be the sum of the others by chance


def check_total_words(path: Path, columns: Columns) -> None:
    """Raise DatasetError where one of the last rows is called a total."""
    count = len(columns)
    for back, cells in enumerate(reversed(columns.last_rows)):
        word = next((cell.strip() for cell in cells if _WORDS.fullmatch(cell.strip())), None)
        if word is not None:
            row = count - back
            raise DatasetError(
                f"{path}: row {row} (line {columns.lines[row - 1]}) is '{word[:40]}', no value of "
                "the series: remove it."
            )


def check_total_value(path: Path, name: str, values: np.ndarray, columns: Columns) -> None:
    """Raise DatasetError where the last value is the sum of all above it."""
    count = len(values)
    if count < _ENOUGH:
        return
    above, last = values[:-1], float(values[-1])
    is_large = abs(last) > 1.5 * float(np.abs(above).max())
    if is_large and math.isclose(last, math.fsum(above.tolist()), rel_tol=1e-6):
        raise DatasetError(
            f"{path}: column '{name}', row {count} (line {columns.lines[-1]}): {last:g} is the sum "
            "of all rows above: remove a row of totals."
        )
