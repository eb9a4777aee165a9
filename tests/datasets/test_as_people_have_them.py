"""Small data sets as people have them: loaded right, or refused with the row or the file named.

Each is written by the code below as some program or device writes it. A case gives the path, what
is loaded with it, and either the truth of what must come out or the words of the refusal.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idl_datasets import Dataset, DatasetError, load

RNG = np.random.default_rng(16)
VALUES = (RNG.normal(size=96).cumsum() + 50).round(2)
HOURS = [datetime(2021, 3, 1) + timedelta(hours=hour) for hour in range(96)]
DAYS = [datetime(2021, 3, 1) + timedelta(days=day) for day in range(96)]


@dataclass
class Case:
    """What `write` puts on disk, and what must come of it.

    truth: the series, or of pictures and arrays what `seen` makes of the data set
    said: parts of what is said of data that were loaded; refused: parts of the one line otherwise
    """

    write: Callable[[Path], Path]
    name: str = "timeseries"
    truth: Any = None
    seen: Callable[[Dataset], Any] | None = None
    said: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def text_file(name: str, text: str, encoding: str = "utf-8") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def table(header: list[str], *columns: Any, mark: str = ",", end: str = "\n") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator=end)
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def german(values: Any) -> list[str]:
    return [f"{value:,.2f}".translate(str.maketrans(",.", ".,")) for value in values]


def series_of(data: Dataset) -> np.ndarray:
    """The whole series, put together again from the windows."""
    splits = [data.train, *([data.val] if data.val else []), data.test]
    return np.concatenate([data.train.x[0, :, 0].numpy(), *(s.y[:, 0].numpy() for s in splits)])


def photos(folder: Path, change: Callable[[Path], None] | None = None) -> Path:
    """Three pictures of cats and three of dogs to train on, one of each to test."""
    for split, count in (("train", 3), ("test", 1)):
        for kind, shade in (("cat", 40), ("dog", 200)):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((8, 6, 3), shade + 5 * number, np.uint8)
                pixels[0, 0] = number if split == "train" else 9
                Image.fromarray(pixels).save(folder / split / kind / f"IMG_{number}.png")
    if change:
        change(folder)
    return folder


def phone_pictures(folder: Path) -> None:
    """One picture was taken with the phone upright: stored lying, with a mark to turn it."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, :4] = 250  # its left half is light: upright that is the top
    lying = Image.fromarray(pixels)
    mark = lying.getexif()
    mark[0x0112] = 6
    lying.save(folder / "train" / "cat" / "IMG_0.jpg", quality=100, exif=mark)
    (folder / "train" / "cat" / "IMG_0.png").unlink()


def iphone_pictures(folder: Path) -> None:
    for number in range(2):
        (folder / "train" / "dog" / f"IMG_{number}.HEIC").write_bytes(b"ftypheic")


def windows_zip(folder: Path) -> Path:
    photos(folder / "p")
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted((folder / "p").rglob("*.png")):
            name = str(entry.relative_to(folder / "p")).replace("/", "\\")
            info = zipfile.ZipInfo("Neuer Ordner\\photos\\" + name)
            info.filename = "Neuer Ordner\\photos\\" + name  # which ZipInfo would set right
            file.writestr(info, entry.read_bytes())
    return path


def mac_zip(folder: Path) -> Path:
    photos(folder / "p")
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted((folder / "p").rglob("*.png")):
            name = str(entry.relative_to(folder / "p"))
            file.write(entry, f"photos/{name}")
            file.writestr(f"__MACOSX/photos/{name.replace('IMG', '._IMG')}", b"\0\5\26\7")
        file.writestr("photos/.DS_Store", b"\0\0\0\1Bud1")
    return path


def stickers(folder: Path) -> None:
    """A cut-out: red, and under its transparent half a colour that no viewer shows."""
    pixels = np.zeros((8, 6, 4), np.uint8)
    pixels[:4] = (255, 0, 0, 255)
    pixels[4:] = (13, 77, 200, 0)
    Image.fromarray(pixels).save(folder / "train" / "cat" / "IMG_0.png")


def scans(folder: Path) -> None:
    pages = [Image.new("RGB", (6, 8), shade) for shade in ("white", "gray")]
    pages[0].save(folder / "train" / "dog" / "scan.tif", save_all=True, append_images=pages[1:])


def half_copied(folder: Path) -> None:
    victim = folder / "test" / "dog" / "IMG_0.png"
    victim.write_bytes(victim.read_bytes()[:50])


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return write


FEATURES = RNG.normal(size=(40, 3))
WORDS = np.array(["setosa", "virginica"])[np.arange(40) % 2]
BGR = RNG.integers(0, 256, (40, 9, 9, 3), dtype=np.uint8)


def classes_and_labels(data: Dataset) -> Any:
    return data.class_names, data.test.y.tolist()


def first_picture(data: Dataset) -> Any:
    return data.train.x[0].permute(1, 2, 0).tolist()


def counts(data: Dataset) -> Any:
    return [len(data.train), len(data.test), *data.class_names]


CASES = {
    "excel, English": Case(
        text_file("sales.csv", table(["Month", "Sales"], [f"{2000 + m // 12}-{m % 12 + 1:02}"
                  for m in range(96)], [f"{1000 * v:,.2f}" for v in VALUES]), "utf-8-sig"),
        truth=1000 * VALUES,
        said=("thousands apart",),
    ),
    "excel, German, newest first": Case(
        text_file("umsatz.csv", table(["Datum", "Umsatz"], [f"{d:%d.%m.%Y}" for d in DAYS[::-1]],
                  german(VALUES[::-1]), mark=";", end="\r\n")),
        truth=VALUES,
        said=("decimal comma", "'Datum' falls, from 04.06.2021 to 01.03.2021"),
    ),
    "excel, unicode text": Case(
        text_file("t.csv", table(["Zeit", "°C"], HOURS, VALUES, mark="\t"), "utf-16"),
        truth=VALUES,
    ),
    "excel, totals below": Case(
        text_file("t.csv", table(["Day", "Visits"], [*DAYS, ""], [*VALUES, VALUES.sum().round(2)])),
        refused=("column 'Day', row 97 (line 98)", "date is missing"),
    ),
    "excel, totals without dates": Case(
        text_file("t.csv", table(["Visits"], [*VALUES, VALUES.sum().round(2)])),
        refused=("column 'Visits', row 97", "sum of all rows above"),
    ),
    "excel, a title above": Case(
        text_file("t.csv", "Sales of the north\n\n" + table(["Day", "Sales"], DAYS, VALUES)),
        refused=("row 1 has 2 cells", "'Sales of the north' a title?"),
    ),
    "excel, the sheet itself": Case(
        text_file("t.csv", "PK\x03\x04\x14\x00\xff", "latin-1"),
        refused=("t.csv is not UTF-8 text", "a spreadsheet", "CSV"),
    ),
    "a sensor that slept": Case(
        text_file("log.csv", "# sensor 7\n# firmware 1.2\n" + table(["time", "temp"],
                  [h + timedelta(hours=5 * (n > 40)) for n, h in enumerate(HOURS)], VALUES)),
        truth=VALUES,
        said=("longer than the usual 1 h: 1", "rows 41 and 42", "begin with #: 2"),
    ),
    "a sensor that sent -9999": Case(
        text_file("log.csv", table(["time", "temp"], HOURS, [*VALUES[:30], -9999, *VALUES[31:]])),
        truth=np.array([*VALUES[:30], -9999, *VALUES[31:]]),
        said=("-9999 in column 'temp'", "first 31"),
    ),
    "a sensor that sent nothing": Case(
        text_file("log.csv", table(["time", "temp"], HOURS, [*VALUES[:30], "", *VALUES[31:]])),
        refused=("column 'temp', row 31 (line 32)", "missing"),
    ),
    "two sensors, one below the other": Case(
        text_file("log.csv", table(["time", "sensor", "temp"], HOURS[:48] * 2,
                  ["a"] * 48 + ["b"] * 48, VALUES)),
        refused=("row 49 (line 50)", "column 'sensor' tells several series apart"),
    ),
    "a meter with date and time apart": Case(
        text_file("power.txt", table(["Date", "Time", "kW"], [f"{h:%d/%m/%Y}" for h in HOURS],
                  [f"{h:%H:%M:%S}" for h in HOURS], VALUES, mark=";")),
        truth=VALUES,
    ),
    "weather with year, month, day, hour": Case(
        text_file("pm.csv", table(["No", "year", "month", "day", "hour", "pm2.5"], range(96),
                  [h.year for h in HOURS], [h.month for h in HOURS], [h.day for h in HOURS],
                  [h.hour for h in HOURS], VALUES)),
        truth=VALUES,
        options={"column": "pm2.5"},
    ),
    "rows shuffled and saved with their numbers": Case(
        text_file("t.csv", table(["", "y"], [5, 3, *range(6, 100)], VALUES)),
        refused=("column '', row 2 (line 3)", "3 comes after 5"),
    ),
    "one hour twice, when summer ended": Case(
        text_file("t.csv", table(["local", "load"], [*HOURS[:20], HOURS[19], *HOURS[20:95]],
                  VALUES)),
        refused=("column 'local', row 21 (line 22)", "2021-03-01 19:00:00 occurs twice"),
    ),
    "numbers as a programmer writes them": Case(
        text_file("t.csv", table(["y"], [*VALUES[:9], "1_000", *VALUES[10:]])),
        refused=("column 'y', row 10 (line 11)", "'1_000' is not a number"),
    ),
    "pictures of a phone": Case(
        lambda folder: photos(folder / "p", phone_pictures), "image_folder",
        seen=lambda data: [int(x[0].float().mean() > 128) for x in data.train.x[0].split(4, 1)],
        truth=[1, 0],
    ),
    "pictures of another phone": Case(
        lambda folder: photos(folder / "p", iphone_pictures), "image_folder",
        seen=counts, truth=[6, 2, "cat", "dog"], said=("2 .heic", "train/dog/IMG_0.HEIC"),
    ),
    "a zip from Windows": Case(
        windows_zip, "image_folder", seen=counts, truth=[6, 2, "cat", "dog"],
    ),
    "a zip from a Mac": Case(mac_zip, "image_folder", seen=counts, truth=[6, 2, "cat", "dog"]),
    "stickers": Case(
        lambda folder: photos(folder / "p", stickers), "image_folder", seen=first_picture,
        truth=[[[255, 0, 0]] * 6] * 4 + [[[255, 255, 255]] * 6] * 4,
        said=("shown on white: 1",),
    ),
    "scans of several pages": Case(
        lambda folder: photos(folder / "p", scans), "image_folder",
        refused=("train/dog/scan.tif", "2 frames or pages"),
    ),
    "a copy that was interrupted": Case(
        lambda folder: photos(folder / "p", half_copied), "image_folder",
        refused=("test/dog/IMG_0.png", "cannot be decoded"),
    ),
    "labels as words": Case(
        npz(x_train=FEATURES[:30], y_train=WORDS[:30], x_test=FEATURES[30:], y_test=WORDS[30:]),
        "arrays", seen=classes_and_labels, truth=(("setosa", "virginica"), [0, 1] * 5),
    ),
    "labels as pandas saves them": Case(
        npz(x_train=FEATURES[:30], y_train=WORDS[:30].astype(object), x_test=FEATURES[30:],
            y_test=WORDS[30:].astype(object)),
        "arrays", refused=("y_train holds Python objects", "astype(str)"),
    ),
    "labels as 0.0 and 1.0, in a column": Case(
        npz(x_train=FEATURES[:30], y_train=np.arange(30.0)[:, None] % 2, x_test=FEATURES[30:],
            y_test=np.arange(10.0)[:, None] % 2),
        "arrays", seen=classes_and_labels, truth=(("0", "1"), [0, 1] * 5),
        said=("0, 1 as float64: taken as class labels", "data.task=regression"),
    ),
    "labels one-hot, as Keras has them": Case(
        npz(x_train=FEATURES[:30], y_train=np.eye(2)[np.arange(30) % 2], x_test=FEATURES[30:],
            y_test=np.eye(2)[np.arange(10) % 2]),
        "arrays", seen=classes_and_labels, truth=(("0", "1"), [0, 1] * 5), said=("one-hot",),
    ),
    "pictures as OpenCV has them": Case(
        npz(x_train=BGR[:30], y_train=np.arange(30) % 2, x_test=BGR[30:],
            y_test=np.arange(10) % 2),
        "arrays", seen=first_picture, truth=BGR[0].tolist(), said=("channels last",),
    ),
    "names as scikit-learn has them": Case(
        npz(X_train=FEATURES, y_train=np.arange(40) % 2, X_test=FEATURES, Y_test=np.arange(40) % 2),
        "arrays", refused=("no array x_train", "Did you mean 'X_train'?"),
    ),
    "a book from Windows": Case(
        text_file("book.txt", "It was a dark night.\r\n" * 60, "utf-8-sig"), "text",
        seen=lambda data: data.output_dim, truth=len(set("It was a dark night.\n")),
        options={"block_size": 16},
    ),
    "a book of old": Case(
        text_file("book.txt", "C'était la nuit.\n" * 60, "latin-1"), "text",
        refused=("book.txt is not UTF-8 text: byte 2 is 0xe9, on line 1", "save it as UTF-8"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_loaded_right_or_refused_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = case.write(tmp_path)
    options = {"look_back": 8} if case.name == "timeseries" else {}
    if case.name in ("image_folder", "arrays"):
        options["val_fraction"] = 0
    options |= case.options
    if case.refused:
        with pytest.raises(DatasetError) as caught:
            load(case.name, path=path, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        for part in case.refused:
            assert part in message
        return
    data = load(case.name, path=path, **options)
    if case.seen is None:
        np.testing.assert_allclose(series_of(data), case.truth, rtol=1e-12)
    else:
        assert case.seen(data) == case.truth
    said = "\n".join(data.notes)
    for part in case.said:
        assert part in said
    if not case.said:
        assert said == ""
