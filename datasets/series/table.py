"""A user's CSV file as columns of text: separators, the line of names, empty lines."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..encoding import read_text
from ..errors import DatasetError, close_match, reason, shortlist

_SEPARATORS = (",", ";", "\t", "|")
_LAST = 3  # rows kept whole: a row of totals stands in one of them


@dataclass
class Columns:
    """Some columns of a table: cells[i][row] without blanks around, and each row's line."""

    cells: list[list[str]]
    lines: list[int]
    last_rows: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Table:
    """A table of text.

    header: the names of the columns
    first: the cells of the first row, as many as there are names
    """

    path: Path
    header: list[str]
    first: list[str]
    separator: str
    _text: str
    _skipped: int  # lines before the rows
    notes: tuple[str, ...] = ()

    def columns(self, indices: Sequence[int]) -> Columns:
        """The columns at `indices`. Raises DatasetError naming a row that has too many cells."""
        cells: list[list[str]] = [[] for _ in indices]
        lines: list[int] = []
        last: deque[list[str]] = deque(maxlen=_LAST)
        for line, row in self._rows():
            for column, index in zip(cells, indices, strict=True):
                column.append(row[index].strip() if index < len(row) else "")
            lines.append(line)
            last.append(row)
        while last and not any(cell.strip() for cell in last[-1]):
            # Spreadsheets write rows of separators alone behind their data.
            last.pop()
            lines.pop()
            for column in cells:
                column.pop()
        return Columns(cells, lines, list(last))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Lines with something in them, and their numbers.

        More cells than names are refused, as each may be a part of the one before: a decimal comma
        would leave of every number what is before it. An empty line is a missing value where it is
        between the rows of a single column.
        """
        reader = csv.reader(io.StringIO(self._text), delimiter=self.separator)
        count, gap = 0, False
        try:
            for cells in reader:
                if not cells:
                    gap = True
                    continue
                count += 1
                if gap and len(self.header) == 1:
                    raise DatasetError(
                        f"{self.path}: an empty line before row {count}: fill it in or remove it."
                    )
                if any(cell.strip() for cell in cells[len(self.header) :]):
                    raise _too_many(self.path, self.header, self.separator, count, cells)
                yield self._skipped + reader.line_num, cells
        except csv.Error as error:
            raise DatasetError(f"{self.path} is damaged or no CSV: {reason(error)}.") from None

    def index(self, wanted: str) -> int:
        """Where the column `wanted` is. Raises DatasetError where there is none, or two."""
        if self.header.count(wanted) > 1:
            count = self.header.count(wanted)
            raise DatasetError(f"{self.path} has {count} columns '{wanted}': rename them.")
        if wanted not in self.header:
            raise DatasetError(
                f"{self.path} has no column '{wanted}'.{close_match(wanted, self.header)} "
                f"Choose from: {shortlist(self.header)}."
            )
        return self.header.index(wanted)


def read_table(path: Path) -> Table:
    """The table in a CSV file, its separator recognised by the line of names.

    Raises DatasetError where the file is no text or has nothing in it.
    """
    lines = read_text(path).split("\n")
    skipped, comments = 0, 0
    given = re.fullmatch(r"sep=(.)", lines[0].strip())  # which Excel writes and reads
    if given:
        skipped = 1
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped][0] == "#"):
        comments += lines[skipped].startswith("#")
        skipped += 1
    if skipped == len(lines):
        raise DatasetError(f"{path} is empty: give a CSV with a line of column names.")
    separator = given[1] if given else _separator(lines[skipped])
    text = "\n".join(lines[skipped:])
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        header = [name.strip() for name in next(reader)]
        header_lines = reader.line_num  # a name may have a line break in it
        first = next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise DatasetError(f"{path} is damaged or no CSV: {reason(error)}.") from None
    while len(header) > 1 and not header[-1]:
        header.pop()  # separators that spreadsheets leave at the ends of lines
    if any(cell.strip() for cell in first[len(header) :]):
        raise _too_many(path, header, separator, 1, first)
    first = [cell.strip() for cell in first[: len(header)]]
    first += [""] * (len(header) - len(first))
    notes = (f"lines left out because they begin with #: {comments:,}",) if comments else ()
    skipped += header_lines
    rest = "\n".join(lines[skipped:])
    return Table(path, header, first, separator, rest, skipped, notes)


def _too_many(
    path: Path, header: list[str], separator: str, row: int, cells: list[str]
) -> DatasetError:
    """The error of a row with more cells than there are names."""
    if len(header) == 1 and row == 1:
        hint = f"is '{header[0][:40]}' a title? The names must be the first line"
    elif separator == ",":
        hint = "commas separate cells, so that 1,5 is two; write 1.5"
    else:
        hint = "leave no separator within a cell"
    return DatasetError(
        f"{path}: row {row} has {len(cells)} cells, more than the {len(header)} of the line of "
        f"names: {hint}."
    )


def _separator(names: str) -> str:
    """What separates the names of columns: what makes most of them, a comma where all make one."""
    return max(_SEPARATORS, key=lambda mark: len(next(csv.reader([names], delimiter=mark), [])))
