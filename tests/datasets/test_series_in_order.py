"""Rows of a series in the order of time: recognised, turned round, refused, or their gaps said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_datasets import load

Fails = Callable[..., Any]
ROWS = 60
DAYS = [datetime(2020, 1, 1) + timedelta(days=day) for day in range(ROWS)]
HOURS = [datetime(2020, 1, 1) + timedelta(hours=hour) for hour in range(ROWS)]
MONTHS = [datetime(1990 + month // 12, month % 12 + 1, 1) for month in range(ROWS)]
WRITTEN: dict[str, list[str]] = {
    "iso": [f"{day:%Y-%m-%d}" for day in DAYS],
    "iso with zones": [f"{hour.isoformat()}+0{1 + n // 30}:00" if n < 30 else
                       f"{(hour + timedelta(hours=1)).isoformat()}+02:00"
                       for n, hour in enumerate(HOURS)],
    "iso in UTC": [f"{hour:%Y-%m-%dT%H:%M:%SZ}" for hour in HOURS],
    "not padded": [f"{day.year}/{day.month}/{day.day}" for day in DAYS],
    "German": [f"{day:%d.%m.%Y}" for day in DAYS],
    "British": [f"{day:%d/%m/%y}" for day in DAYS],
    "American": [f"{day.month}/{day.day}/{day.year}" for day in DAYS],
    "American by the hour": [f"{hour:%m/%d/%Y %I:%M %p}" for hour in HOURS],
    "named": [f"{day:%d-%b-%Y}" for day in DAYS],
    "named, American": [f"{day:%b} {day.day} {day.year}" for day in DAYS],
    "months": [f"{month:%Y-%m}" for month in MONTHS],
    "months, day first": [f"{month:%d/%m/%Y}" for month in MONTHS],
    "ends of months": [f"{month - timedelta(days=1):%Y-%m-%d}" for month in MONTHS],
    "quarters": [f"{1990 + n // 4}Q{n % 4 + 1}" for n in range(ROWS)],
    "compact": [f"{day:%Y%m%d}" for day in DAYS],
    "epoch": [str(1577836800 + 60 * n) for n in range(ROWS)],
    "milliseconds": [f"2020-01-01 00:00:{n:02}.{n * 13 % 1000:03}" for n in range(ROWS)],
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(times, values=0, 1, 2, …, name="date") makes a file of two columns."""

    def make(times: list[str], values: Any = None, name: str = "date") -> Path:
        path = tmp_path / "series.csv"
        rows = zip(times, range(len(times)) if values is None else values, strict=True)
        cells = [f'"{time}",{value}' for time, value in rows]
        path.write_text("\n".join([f"{name},y", *cells]))
        return path

    return make


def whole(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    data = load("timeseries", path=path, look_back=4, val_fraction=0)
    parts = (data.train.x[0, :, 0], data.train.y[:, 0], data.test.y[:, 0])
    return np.concatenate([part.numpy() for part in parts]), data.notes


@pytest.mark.parametrize("kind", WRITTEN)
def test_dates_however_written(kind: str, write: Callable[..., Path], fails: Fails) -> None:
    times = WRITTEN[kind]
    values, said = whole(write(times))
    assert values.tolist() == list(range(ROWS))
    assert said == ()
    values, said = whole(write(times[::-1]))
    assert values.tolist() == list(range(ROWS))[::-1]
    assert len(said) == 1
    assert f"'date' falls, from {times[-1]} to {times[0]}" in said[0]
    with fails("column 'date', row 32 (line 33)", f"{times[30]} occurs twice"):
        whole(write([*times[:31], times[30], *times[32:]]))
    with fails("row 21 (line 22)", f"{times[0]} comes after {times[39]}", "one below the other"):
        whole(write([*times[20:40], *times[:20], *times[40:]]))
    order = np.random.default_rng(0).permutation(ROWS)
    with fails("are earlier than the one before", "sort the rows"):
        whole(write([times[row] for row in order]))
    with fails("row 12", "the date is missing"):
        whole(write([*times[:11], "", *times[12:]]))
    if kind != "epoch":
        with fails("row 60", "'Summary' is not written like"):
            whole(write([*times[:-1], "Summary"]))
        _, said = whole(write(times[:20] + times[25:]))
        assert "longer than the usual" in said[0]
        assert f": 1, first from {times[19]} to {times[25]} (rows 20 and 21)" in said[0]


def test_steps_without_a_usual_length_are_said(write: Callable[..., Path]) -> None:
    steps = np.random.default_rng(1).exponential(size=ROWS).cumsum()
    times = [(DAYS[0] + timedelta(days=float(step))).isoformat(" ") for step in steps]
    _, said = whole(write(times))
    assert "uneven" in said[0]


def test_only_what_can_be_a_time_is_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{n * 7 % 11}.5,{'ab'[n % 2]},{n % 5},{n}" for n in range(ROWS)]
    path.write_text("\n".join(["weight,kind,wind,y", *rows]))
    values, said = whole(path)
    assert values.tolist() == list(range(ROWS))
    assert "no column of dates is recognised" in said[1]


def test_the_column_that_is_taken_is_said(tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{day:%Y-%m-%d},{n},{2 * n},{3 * n}" for n, day in enumerate(DAYS)]
    path.write_text("\n".join(["date,a,b,c", *rows]))
    _, said = whole(path)
    assert said == ("column 'c', the last, is predicted: data.column chooses another (a, b)",)
    assert load("timeseries", path=path, column="b", look_back=4).notes == ()
    path.write_text("\n".join(["date,a,note", *(f"{day:%Y-%m-%d},1,x" for day in DAYS)]))
    with fails("column 'note', row 1", "'x' is not a number", "data.column (a)"):
        whole(path)


@pytest.mark.parametrize(
    ("mark", "cells", "numbers"),
    [
        (",", ['"1,234.50"', "12.25", '"-3,000"'], [1234.5, 12.25, -3000.0]),
        (",", ['"1.234,50"', '"12,25"', "7"], [1234.5, 12.25, 7.0]),
        (";", ["1.234,5", "12,25", "-0,5"], [1234.5, 12.25, -0.5]),
        (";", ["21,345", "22,456", "1,5e3"], [21.345, 22.456, 1500.0]),
        (";", ["1.5", "2.25", "+3"], [1.5, 2.25, 3.0]),
        ("\t", ["1\u202f234,5", "12,25", "2\u00a0000"], [1234.5, 12.25, 2000.0]),
        ("\t", ["1'234.5", "12.25", "2'000"], [1234.5, 12.25, 2000.0]),
        (",", ["1e3", ".5", "5."], [1000.0, 0.5, 5.0]),
    ],
)
def test_numbers_as_they_are_written(
    mark: str, cells: list[str], numbers: list[float], tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join([f"n{mark}y", *(f"{n}{mark}{cells[n % 3]}" for n in range(ROWS))]))
    values, said = whole(path)
    assert values.tolist() == numbers * 20
    plain = all("," not in cell and "'" not in cell and "\u202f" not in cell for cell in cells)
    assert ("y' are written with" in "".join(said)) == (not plain)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1_000", "'1_000' is not a number"),
        ("\u0663", "is not a number"),  # a digit, and float() takes it
        ("0x1f", "is not a number"),
        ("12%", "is not a number"),
        ("€ 5", "is not a number"),
        ("#N/A", "missing (#N/A)"),
        ("?", "missing (?)"),
        ("1e999", "is not a finite number"),
    ],
)
def test_what_is_no_number(cell: str, said: str, write: Callable[..., Path], fails: Fails) -> None:
    with fails("column 'y', row 8 (line 9)", said):
        whole(write(WRITTEN["iso"], [*range(7), cell, *range(8, ROWS)]))


def test_a_number_that_can_be_two_is_refused(write: Callable[..., Path], fails: Fails) -> None:
    with fails("'1,000' is 1.0 or 1000.0"):
        whole(write(WRITTEN["iso"], [f'"{1 + n},000"' for n in range(ROWS)]))
