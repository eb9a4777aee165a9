"""The user's pictures: how they are laid out, and what is said where they are not so."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idl_datasets import load
from idl_datasets.pictures import image_folder

Fails = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, write_pictures: Any) -> Path:
    write_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


def save(pixels: Any, path: Path, **options: Any) -> None:
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)


@pytest.mark.parametrize("top", ["", "pictures/"])
def test_folder_and_zip_hold_the_same(
    top: str, tmp_path: Path, write_pictures: Any, zip_folder: Any
) -> None:
    truth = write_pictures(tmp_path / "pictures")
    packed = zip_folder(tmp_path / "pictures", tmp_path / "p.zip", top)
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "pictures", packed):
        data = load("image_folder", path=path, val_fraction=0)
        np.testing.assert_array_equal(data.train.x.numpy(), truth["x_train"])
        np.testing.assert_array_equal(data.test.x.numpy(), truth["x_test"])
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked


@pytest.mark.parametrize(
    "name", ["../../train/ant/evil.png", "/../etc/x.png", "train/ant/../9.png"]
)
def test_names_that_lead_elsewhere_are_nobodys_pictures(
    name: str, folder: Path, zip_folder: Any
) -> None:
    path = zip_folder(folder, folder.parent / "p.zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    assert len(load("image_folder", path=path, val_fraction=0).train) == 16


def test_one_folder_around_them(tmp_path: Path, folder: Path) -> None:
    assert len(load("image_folder", path=tmp_path, val_fraction=0).train) == 16
    (tmp_path / ".git").mkdir()
    assert len(load("image_folder", path=str(tmp_path), val_fraction=0).train) == 16


def test_what_desktops_leave_behind_is_no_picture(folder: Path, zip_folder: Any) -> None:
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "ant" / "._0.png").write_bytes(b"x")
    (folder / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (folder / "__MACOSX" / "train").mkdir(parents=True)
    (folder / "README.txt").write_text("mine")
    packed = zip_folder(folder, folder.parent / "p.zip", "top/")
    for path in (folder, packed):
        assert len(load("image_folder", path=path, val_fraction=0).train) == 16


def test_jpegs_are_decoded_as_pillow_does(folder: Path, rng: np.random.Generator) -> None:
    for split in ("train", "test"):
        shutil.rmtree(folder / split)
        for name in ("x", "y"):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                low = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
                low.resize((16, 12)).save(folder / split / name / f"{number}.JPG", "JPEG")
    data = load("image_folder", path=folder, val_fraction=0)
    assert data.input_shape == (3, 12, 16)
    files = sorted((folder / "train").rglob("*.JPG"))
    for x, file in zip(data.train.x, files, strict=True):
        with Image.open(file) as picture:
            pixels = [picture.getpixel((column, 7)) for column in range(16)]
        np.testing.assert_array_equal(x[:, 7].T.numpy(), pixels)


def test_gray_among_coloured_becomes_coloured(folder: Path) -> None:
    gray = np.arange(30).reshape(6, 5)
    save(gray, folder / "train" / "ant" / "0.png")
    x = load("image_folder", path=folder, val_fraction=0).train.x
    assert x.shape[1:] == (3, 6, 5)
    np.testing.assert_array_equal(x[0].numpy(), np.stack([gray] * 3))


def test_other_modes_of_pillow(tmp_path: Path, write_pictures: Any) -> None:
    gray = np.arange(30).reshape(6, 5) * 8
    write_pictures(tmp_path, (6, 5))
    image = Image.fromarray(gray.astype(np.uint8))
    image.convert("LA").save(tmp_path / "train" / "ant" / "0.png")
    assert load("image_folder", path=tmp_path).input_shape == (1, 6, 5)
    image.convert("P").save(tmp_path / "train" / "ant" / "1.png")
    image.convert("RGBA").save(tmp_path / "train" / "ant" / "2.png")
    x = load("image_folder", path=tmp_path, val_fraction=0).train.x
    for row in range(3):
        np.testing.assert_array_equal(x[row].numpy(), np.stack([gray] * 3))


def test_large_pictures_are_decoded_by_threads_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_CHUNK", 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    for split in ("train", "test"):
        for number in range(15):
            folder = tmp_path / split / ("a" if number < 10 else "b")
            folder.mkdir(parents=True, exist_ok=True)
            save(np.full((128, 128), number), folder / f"{number:02}.png")
    seen: list[tuple[str, int, int | None]] = []
    data = load(
        "image_folder", path=tmp_path, val_fraction=0, progress=lambda *what: seen.append(what)
    )
    assert data.train.x[:, 0, 5, 5].tolist() == list(range(15))
    assert data.test.x[:, 0, 99, 0].tolist() == list(range(15))
    assert [done for _, done, _ in seen] == list(range(2, 31, 2))
    assert {total for _, _, total in seen} == {30}


def test_an_odd_size_is_named(folder: Path, fails: Fails) -> None:
    save(np.zeros((5, 6, 3)), folder / "test" / "bee" / "1.png")
    save(np.zeros((9, 9, 3)), folder / "test" / "bee" / "2.png")
    with fails("test/bee/1.png is 6x5", "train/ant/0.png is 5x6", "resize"):
        load("image_folder", path=folder)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("data", [b"", b"no picture at all", "half"])
def test_a_damaged_picture_is_named(
    data: bytes | str, packed: bool, folder: Path, zip_folder: Any, fails: Fails
) -> None:
    victim = folder / "train" / "bee" / "5.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2] if isinstance(data, str) else data)
    path = zip_folder(folder, folder.parent / "p.zip", "t/") if packed else folder
    with fails(path, "train/bee/5.png", "cannot be decoded"):
        load("image_folder", path=path)


def test_a_damaged_member_of_a_zip_is_named(folder: Path, zip_folder: Any, fails: Fails) -> None:
    path = zip_folder(folder, folder.parent / "p.zip")
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("train/ant/3.png")
        start = info.header_offset + 30 + len(info.filename)
    data = bytearray(path.read_bytes())
    data[start + info.file_size // 2] ^= 255
    path.write_bytes(data)
    with fails(path, "train/ant/3.png", "CRC"):
        load("image_folder", path=path)
    path.write_bytes(data[: len(data) // 2])
    with fails(path, "cannot be read as a .zip"):
        load("image_folder", path=path)


def test_formats_that_run_programs_are_not_opened(folder: Path, fails: Fails) -> None:
    eps = io.BytesIO()
    Image.new("RGB", (5, 6)).save(eps, "EPS")
    (folder / "train" / "ant" / "0.png").write_bytes(eps.getvalue())
    with fails("train/ant/0.png", "cannot identify"):
        load("image_folder", path=folder)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("gone", "parts"),
    [
        ("train", ["no folder train/", "test"]),
        ("test", ["no folder test/", "train"]),
        ("train/*/*", ["train/ant has no pictures"]),
        ("test/*/*", ["test/ has no pictures"]),
        ("train/*nt", ["class 'ant' is in test/ but not in train/ (bee)"]),
        ("train/*", ["train/ has no class folders"]),
        ("*", ["no folder train/", "nothing"]),
        ("train/bee", ["class 'bee' is in test/ but not in train/ (ant)"]),
    ],
)
def test_what_is_missing_is_said(
    gone: str, parts: list[str], packed: bool, folder: Path, zip_folder: Any, fails: Fails
) -> None:
    for entry in list(folder.glob(gone)):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    path = zip_folder(folder, folder.parent / "p.zip") if packed else folder
    with fails(path, *parts):
        load("image_folder", path=path)


def test_a_class_absent_from_test_is_allowed(folder: Path) -> None:
    shutil.rmtree(folder / "test" / "ant")
    data = load("image_folder", path=folder)
    assert data.test.y.tolist() == [1, 1, 1]
    assert data.output_dim == 2


def test_pictures_in_the_wrong_place_are_not_left_out(folder: Path, fails: Fails) -> None:
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "train" / "0.png")
    with fails("train/0.png lies in no class folder"):
        load("image_folder", path=folder)
    (folder / "train" / "0.png").unlink()
    (folder / "train" / "ant" / "deeper").mkdir()
    with fails("train/ant has a folder 'deeper'"):
        load("image_folder", path=folder)


def test_no_folder_and_no_zip(tmp_path: Path, fails: Fails) -> None:
    with fails(tmp_path / "none", "does not exist", "train/<class>/*"):
        load("image_folder", path=tmp_path / "none")
    for name, data in (("a.zip", b""), ("b.zip", b"PK no zip"), ("c.txt", b"text")):
        (tmp_path / name).write_bytes(data)
        with fails(tmp_path / name, "cannot be read as a .zip"):
            load("image_folder", path=tmp_path / name)
