"""Series from files: windows, scaling, and what is said about files that will not do."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idl_datasets import SeriesDataset, load

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("IDL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")


@pytest.fixture
def series(rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(size=100).cumsum() * 3 + 50).astype(np.float32).astype(np.float64)


@pytest.fixture
def file(tmp_path: Path, series: np.ndarray) -> Path:
    path = tmp_path / "series.csv"
    hours = [datetime(2020, 1, 1) + timedelta(hours=row) for row in range(len(series))]
    lines = [f"{hour},{value!r},x" for hour, value in zip(hours, series.tolist(), strict=True)]
    path.write_text("\n".join(["date,OT,note", *lines]) + "\n")
    return path


def everything(split: Any) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = split.batch(torch.arange(len(split)))
    return inputs.numpy(), targets.numpy()


def test_windows_are_those_of_the_series(file: Path, series: np.ndarray) -> None:
    settings = {"column": "OT", "look_back": 5, "horizon": 2}
    data = load("timeseries", path=file, val_fraction=0.25, test_fraction=0.2, **settings)
    assert isinstance(data, SeriesDataset)
    mean, std = series[:60].mean(), series[:60].std()  # of the train rows alone
    scaled = (series - mean) / std
    bounds = {"train": (5, 60), "val": (60, 80), "test": (80, 100)}
    for name, (first, end) in bounds.items():
        starts = range(first, end - 1)  # of the two targets
        inputs, targets = everything(getattr(data, name))
        assert inputs.shape == (len(starts), 5, 1)
        for row, start in enumerate(starts):
            np.testing.assert_allclose(inputs[row, :, 0], scaled[start - 5 : start], atol=1e-5)
            np.testing.assert_allclose(targets[row], scaled[start : start + 2], atol=1e-5)
    assert (data.output_dim, data.input_shape) == (2, (5, 1))


def test_rows_can_be_counted_out(file: Path) -> None:
    data = load("timeseries", path=file, column="OT", look_back=5, rows=[50, 0, 30])
    assert data.val is None
    assert (len(data.train), len(data.test)) == (45, 30)


def test_own_units_and_persistence(file: Path, series: np.ndarray) -> None:
    data = load("timeseries", path=file, column="OT", look_back=5, horizon=3, val_fraction=0)
    truth = np.stack([series[start : start + 3] for start in range(80, 98)])
    np.testing.assert_array_equal(data.test.y.numpy(), truth)
    own_units = data.denormalise(data.test.targets()).numpy()
    np.testing.assert_allclose(own_units, truth, rtol=1e-5)
    guess = data.denormalise(data.persistence(data.test)).numpy()
    np.testing.assert_allclose(guess, np.repeat(series[79:97, None], 3, 1), rtol=1e-5)


def test_windows_share_the_memory_of_the_series(file: Path) -> None:
    data = load("timeseries", path=file, column="OT", look_back=20)
    assert data.train.x.untyped_storage().nbytes() == 100 * 8
    assert data.test.y.untyped_storage().data_ptr() == data.train.x.untyped_storage().data_ptr()


def test_a_series_far_from_zero_keeps_its_digits(tmp_path: Path, series: np.ndarray) -> None:
    paths = {0.0: tmp_path / "near.csv", 1e8: tmp_path / "far.csv"}
    for offset, path in paths.items():
        path.write_text("\n".join(["y", *(repr(offset + value) for value in series.tolist())]))
    near, far = (load("timeseries", path=path, look_back=5) for path in paths.values())
    for found, truth in zip(everything(far.test), everything(near.test), strict=True):
        np.testing.assert_allclose(found, truth, atol=1e-6)  # 1e8's neighbours are 1.5e-8 apart


def test_a_file_without_names_does_not_lose_its_first_row(
    tmp_path: Path, series: np.ndarray, fails: Callable[..., Any]
) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("\n".join(f"{number},{value}" for number, value in enumerate(series)))
    with fails(
        path, f"ends in {series[0]}, a number", "a line of names", f"data.column={series[0]}"
    ):
        load("timeseries", path=path)
    path.write_text("2018,2019\n" + path.read_text())  # years, say
    data = load("timeseries", path=path, column="2019", look_back=5, val_fraction=0)
    np.testing.assert_array_equal(data.test.y[:, 0].numpy(), series[80:])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "the value is missing"),
        ("NaN", "the value is missing"),
        ("inf", "not a finite number"),
        ("12,5", "'12,5' is not a number"),
        ("twelve", "'twelve' is not a number"),
    ],
)
def test_a_bad_cell_is_named(file: Path, fails: Callable[..., Any], cell: str, said: str) -> None:
    rows = list(csv.reader(file.read_text().splitlines()))
    rows[43][1] = cell
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    with fails(file, "column 'OT'", "row 43 (line 44)", said):
        load("timeseries", path=file, column="OT", look_back=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n1.5\n2,5\n3.5\n", ["row 2 has 2 cells", "more than the 1", "write 1.5"]),
        ("t,a,b\n1,2,3\n2,1,000.5,3\n", ["row 2 has 4 cells", "more than the 3"]),
        ("a\n1\n\n3\n", ["an empty line before row 2"]),
        ("t;a\n1;2,5\n2;3;5\n", ["row 2 has 3 cells", "no separator within"]),
        ("Sales 2020\nt,a\n1,2\n", ["row 1 has 2 cells", "is 'Sales 2020' a title?"]),
        ("a,a\n1,2\n", ["2 columns 'a'"]),
    ],
)
def test_numbers_are_not_cut_or_moved(
    tmp_path: Path, fails: Callable[..., Any], text: str, said: list[str]
) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text)
    with fails(path, *said):
        load("timeseries", path=path, column="a")


def test_empty_cells_and_lines_at_the_end_are_nothing(tmp_path: Path, series: np.ndarray) -> None:
    path = tmp_path / "series.csv"
    path.write_text("a\n" + "".join(f"{value!r},\n" for value in series.tolist()) + "\n\n")
    data = load("timeseries", path=path, look_back=5, val_fraction=0)
    np.testing.assert_array_equal(data.test.y[:, 0].numpy(), series[80:])


def test_other_refusals(file: Path, tmp_path: Path, fails: Callable[..., Any]) -> None:
    with fails("has no column 'OTT'", "Did you mean 'OT'?", "date, OT, note"):
        load("timeseries", path=file, column="OTT")
    with fails("column 'note'", "row 1", "'x' is not a number"):
        load("timeseries", path=file)  # the last column where none is named
    with fails("100 rows", "too few for look_back=120"):
        load("timeseries", path=file, column="OT", look_back=120)
    with fails("train has 20 rows", "too few"):
        load("timeseries", path=file, column="OT", look_back=30, rows=[20, 0, 60])
    with fails("100 rows, fewer than rows=[90, 10, 10]", "110"):
        load("timeseries", path=file, column="OT", look_back=5, rows=[90, 10, 10])
    with fails("rows=7", "three numbers"):
        load("timeseries", path=file, column="OT", look_back=5, rows=7)
    with fails("test_fraction=1.5", "between 0 and 1"):
        load("timeseries", path=file, column="OT", test_fraction=1.5)
    with fails("does not exist"):
        load("timeseries", path=tmp_path / "absent.csv")
    with fails("timeseries needs data.path"):
        load("timeseries")
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3\n")
    with fails("column 'b', row 2 (line 3)", "value is missing"):
        load("timeseries", path=tmp_path / "short.csv")
    (tmp_path / "empty.csv").write_text("")
    with fails("is empty"):
        load("timeseries", path=tmp_path / "empty.csv")
    (tmp_path / "latin.csv").write_bytes(b"a\n\xe9\n")
    with fails("not UTF-8"):
        load("timeseries", path=tmp_path / "latin.csv")


def test_parquet(tmp_path: Path, series: np.ndarray, fails: Callable[..., Any]) -> None:
    path = tmp_path / "series.parquet"
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        path.write_bytes(b"PAR1")
        with fails("needs pyarrow"):
            load("timeseries", path=path)
        return
    parquet.write_table(pyarrow.table({"OT": series, "note": ["x"] * len(series)}), path)
    data = load("timeseries", path=path, column="OT", look_back=5)
    np.testing.assert_array_equal(data.test.y[:, 0].numpy(), series[80:])
    with fails("column 'note'", "not numbers"):
        load("timeseries", path=path, column="note")
    days = [datetime(2020, 1, 1) + timedelta(days=row) for row in range(len(series))]
    for dates in (days, [f"{day:%d.%m.%Y}" for day in days]):
        parquet.write_table(pyarrow.table({"day": dates[::-1], "OT": series[::-1]}), path)
        data = load("timeseries", path=path, look_back=5)
        np.testing.assert_array_equal(data.test.y[:, 0].numpy(), series[80:])
        assert "'day' falls" in data.notes[0]
        parquet.write_table(pyarrow.table({"day": [*dates[50:], *dates[:50]], "OT": series}), path)
        with fails("column 'day', row 51", "comes after"):
            load("timeseries", path=path, look_back=5)
    series[7] = np.nan
    parquet.write_table(pyarrow.table({"OT": series}), path)
    with fails("column 'OT', row 8"):
        load("timeseries", path=path, column="OT", look_back=5)


def test_etth1() -> None:
    path = DATA / "ETTh1.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent: set IDL_TEST_DATA to a folder that has ETTh1.csv")
    data = load("timeseries", path=path, column="OT", look_back=60, rows=[8640, 2880, 2880])
    assert [len(split) for split in (data.train, data.val, data.test)] == [8580, 2880, 2880]
    column = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=7)
    np.testing.assert_array_equal(data.test.y[:, 0].numpy(), column[11520:14400])
