"""Tables on the screen: drawn and coloured on a terminal, aligned plain lines where piped."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from idl_cli.display.terminal import draws

_STATUS_STYLES = {
    "completed": "green",
    "failed": "red",
    "damaged": "red",
    "interrupted": "yellow",
    "unfinished": "yellow",
    "yes": "green",
}
_NARROWEST_TEXT = 24  # a longer text column is wrapped so far before a column is left out
_NARROWEST_BRIEF = 11  # and one of brief cells
_GAP = 2  # between columns


@dataclass
class Column:
    """One column. Of those that do not fit the terminal, the highest `spare` is left out first.

    Attributes:
        wraps: long text that may be broken over lines.
        brief: shorter cells, which take the place of `cells` where the terminal is narrow.
    """

    name: str
    cells: list[str]
    number: bool = False
    spare: int = 0
    wraps: bool = False
    brief: list[str] | None = None

    @property
    def width(self) -> int:
        """Characters of the widest cell or the name."""
        return max(len(self.name), *(len(cell) for cell in self.cells), 1)

    @property
    def least_width(self) -> int:
        """Characters that it needs when drawn, where names, and text that wraps, are broken."""
        words = self.name.split() or [""]
        cells = max((len(cell) for cell in self.cells), default=1)
        narrowest = _NARROWEST_TEXT if self.cells is not self.brief else _NARROWEST_BRIEF
        cells = min(cells, narrowest) if self.wraps else cells
        return max(cells, *(len(word) for word in words))


def metric_text(value: float) -> str:
    """A metric as every table shows it: four decimals, or a power of ten where that says nothing.

    Large ones stay plain: a column of 1.342e+05 and 7785.3832 cannot be compared.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.4f}"
    return f"{value:.1f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3e}"


def print_table(columns: Sequence[Column]) -> None:
    """Print columns of equal length side by side."""
    if draws(sys.stdout):
        _print_drawn(columns)
    else:
        _print_plain(columns)


def _print_plain(columns: Sequence[Column]) -> None:
    widths = [column.width for column in columns]
    rows = [[column.name for column in columns]]
    rows += [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    for row in rows:
        aligned = (
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        print((" " * _GAP).join(aligned).rstrip())


def _print_drawn(columns: Sequence[Column]) -> None:
    # Not rich's own table: for a thousand rows that takes a second by itself.
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.style import Style

    console = Console()
    shown, hidden = fitting(columns, console.width)
    widths = _widths(shown, console.width)
    styles = {cell: Style.parse(name) for cell, name in _STATUS_STYLES.items()}
    bold, dim = Style.parse("bold"), Style.parse("dim")
    segments: list[Segment] = []

    def add_row(cells: Sequence[str], style: Style | None = None) -> None:
        broken = [_broken(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for line in zip_longest(*broken, fillvalue=""):
            for column, cell, text, width in zip(shown, cells, line, widths, strict=True):
                padded = _padded(text, width, right=column.number)
                segments.append(Segment(padded, style or styles.get(cell)))
                segments.append(Segment(" " * _GAP))
            segments[-1] = Segment.line()

    add_row([column.name for column in shown], bold)
    segments += [Segment("─" * (sum(widths) + _GAP * (len(widths) - 1)), dim), Segment.line()]
    for cells in zip(*(column.cells for column in shown), strict=True):
        add_row(cells)
    console.print(Segments(segments), end="")
    if hidden:
        console.print(f"not shown for want of width: {', '.join(hidden)}", style=dim, markup=False)


def _broken(cell: str, width: int) -> list[str]:
    """A cell in lines of at most `width` characters."""
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_on_hyphens=False)


def _padded(text: str, width: int, *, right: bool) -> str:
    from rich.cells import cell_len  # a character can be two wide

    gap = " " * (width - cell_len(text))
    return gap + text if right else text + gap


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit in `width` characters, and the names of those left out."""
    shown = list(columns)
    if _total(shown) > width:
        columns = [
            column if column.brief is None else replace(column, cells=column.brief)
            for column in columns
        ]
        shown = list(columns)
    while _total(shown) > width and any(column.spare for column in shown):
        shown.remove(max(shown, key=lambda column: column.spare))
    return shown, [column.name for column in columns if column not in shown]


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """What each column gets of `width`: its least, and of what is left what it can use, in order.

    Where not even the least is there, the widest column does with less.
    """
    spare = width - _total(columns)
    widths = [column.least_width for column in columns]
    if spare < 0:
        widest = widths.index(max(widths))
        widths[widest] = max(widths[widest] + spare, 10)
        return widths
    for index, column in enumerate(columns):
        more = min(column.width - column.least_width, spare)
        widths[index] += more
        spare -= more
    return widths


def _total(columns: Sequence[Column]) -> int:
    return sum(column.least_width for column in columns) + _GAP * (len(columns) - 1)
