"""Pictures come out as viewers show them, or it is said what became of them."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from idl_datasets import load
from idl_datasets.pictures.decoding import decode

Fails = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, write_pictures: Any) -> Path:
    write_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, after the format's description."""
    height, width = values.shape[:2]
    kind = 0 if values.ndim == 2 else {2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip


def deep_tiff(values: np.ndarray) -> bytes:
    """A TIFF of 16 bits and three channels, after the format's description."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    count = 9
    behind = 8 + 2 + 12 * count + 4
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, behind), (259, 3, 1, 1),
               (262, 3, 1, 2), (273, 4, 1, behind + 6), (277, 3, 1, 3), (278, 4, 1, height),
               (279, 4, 1, len(data))]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (b"II*\0" + struct.pack("<IH", 8, count) + directory + struct.pack("<I", 0)
            + struct.pack("<HHH", 16, 16, 16) + data)  # fmt: skip


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_as_their_camera_says(orientation: int, kind: str) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 250  # one corner and one edge tell all eight apart
    upright[8:, :8] = 120
    # What the sensor stored, by the eight cases of the EXIF standard: where its first row and its
    # first column are in the picture.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright[::-1, ::-1].T, 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    mark = picture.getexif()
    mark[0x0112] = orientation
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    pixels = decode(encoded(picture, kind, exif=mark, **options)).pixels
    np.testing.assert_allclose(pixels[0].astype(int), upright, atol=12)


def test_deep_pictures_are_treated_alike(folder: Path, rng: np.random.Generator) -> None:
    values = rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    gray = values[..., 0]
    ppm = b"P6\n5 6\n65535\n" + values.astype(">u2").tobytes()
    for data in (deep_png(values), deep_tiff(values)):
        np.testing.assert_array_equal(decode(data).pixels, (values >> 8).transpose(2, 0, 1))
    for data in (deep_png(gray), encoded(Image.fromarray(gray), "TIFF"),
                 b"P5\n5 6\n65535\n" + gray.astype(">u2").tobytes()):  # fmt: skip
        np.testing.assert_array_equal(decode(data).pixels, gray[None] >> 8)
    np.testing.assert_allclose(
        decode(ppm).pixels.astype(int).transpose(1, 2, 0), values >> 8, atol=1
    )
    (folder / "train" / "ant" / "0.png").write_bytes(deep_png(values))
    (folder / "test" / "bee" / "0.png").write_bytes(deep_png(gray))
    data = load("image_folder", path=folder)
    assert data.notes == ("pictures of 16 bits a channel, of which the upper 8 are taken: 2",)


def test_of_dark_deep_pictures_eight_bits_would_leave_nothing(
    folder: Path, rng: np.random.Generator, fails: Fails
) -> None:
    for file in folder.rglob("*.png"):
        file.write_bytes(deep_png(rng.integers(0, 4096, (6, 5), dtype=np.uint16)))
    with fails(folder, "22 pictures of 16 bits a channel", "scale them"):
        load("image_folder", path=folder)


@pytest.mark.parametrize("values", [np.int32, np.float32])
def test_deeper_pictures_are_refused(values: Any, folder: Path, fails: Fails) -> None:
    Image.fromarray(np.ones((6, 5), values)).save(folder / "train" / "bee" / "1.tif")
    with fails("train/bee/1.tif", "more than 16 bits"):
        load("image_folder", path=folder)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_shines_through_is_white(kind: str, mode: str) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (70, 70, 70, 255)
    pixels[2:] = (200, 10, 30, 0)
    picture = Image.fromarray(pixels)
    if kind == "GIF" or mode == "P":
        flat = Image.new("P", (4, 4), 0)
        flat.putpalette([200, 10, 30, 70, 70, 70])
        flat.paste(1, (0, 0, 4, 2))
        data = encoded(flat, "PNG" if kind == "WEBP" else kind, transparency=0)
    else:
        data = encoded(
            picture.convert(mode), kind, **({"lossless": True} if kind == "WEBP" else {})
        )
    found = decode(data)
    assert found.was == {"transparent"}
    np.testing.assert_array_equal(found.pixels[:, :2], 70)
    np.testing.assert_array_equal(found.pixels[:, 2:], 255)


def test_half_transparent_is_half_white() -> None:
    pixels = np.full((2, 2, 4), 128, np.uint8)
    pixels[..., :3] = 0
    found = decode(encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_allclose(found.pixels, 127, atol=1)
    opaque = decode(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 255)), "PNG"))
    assert opaque.was == frozenset()
    assert opaque.pixels[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_more_than_one_frame_is_refused(kind: str, folder: Path, fails: Fails) -> None:
    frames = [Image.new("RGB", (5, 6), shade) for shade in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    (folder / "train" / "bee" / f"7.{kind.lower()}").write_bytes(data)
    with fails(f"train/bee/7.{kind.lower()}", "3 frames"):
        load("image_folder", path=folder)
    (folder / "train" / "bee" / f"7.{kind.lower()}").write_bytes(encoded(frames[0], kind))
    assert load("image_folder", path=folder).notes == ()


def test_a_second_picture_that_no_viewer_shows() -> None:
    pair = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
    data = encoded(pair[0], "MPO", save_all=True, append_images=pair[1:])  # as phones write
    assert decode(data).pixels[:, 0, 0].tolist() == pytest.approx([254, 0, 0], abs=3)


def test_cmyk_is_made_rgb_and_said(folder: Path) -> None:
    picture = Image.new("CMYK", (5, 6), (0, 255, 255, 0))
    (folder / "train" / "ant" / "0.jpg").write_bytes(encoded(picture, "JPEG", quality=100))
    data = load("image_folder", path=folder, val_fraction=0)
    assert data.train.x[0, :, 3, 3].tolist() == pytest.approx([254, 0, 0], abs=3)
    assert "in CMYK, made RGB without a colour profile (approximately): 1" in data.notes[0]


@pytest.mark.parametrize("suffix", ["jfif", "JPG", "jpe", "PNG", "avif", "pbm"])
def test_suffixes_that_are_read(suffix: str, folder: Path) -> None:
    kind = {"png": "PNG", "avif": "AVIF", "pbm": "PPM"}.get(suffix.lower(), "JPEG")
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = encoded(Image.new("1" if kind == "PPM" else "RGB", (5, 6), 1), kind)
    (folder / "train" / "ant" / f"9.{suffix}").write_bytes(data)
    found = load("image_folder", path=folder, val_fraction=0)
    assert len(found.train) == 17
    assert found.notes == ()


def test_what_is_left_out_is_counted(folder: Path, fails: Fails) -> None:
    for name in ("train/ant/1.heic", "train/ant/2.HEIC", "test/bee/a.mov", "train/list.csv"):
        (folder / name).write_bytes(b"x")
    said = load("image_folder", path=folder).notes
    assert len(said) == 1
    assert "no pictures that are read here: 4 (2 .heic, 1 .csv, 1 .mov)" in said[0]
    for file in (folder / "train" / "ant").glob("*.png"):
        file.unlink()
    with fails("train/ant has no pictures", "but 2 .heic (convert them"):
        load("image_folder", path=folder)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_validation_split(
    name: str, folder: Path, zip_folder: Any, fails: Fails
) -> None:
    whole = load("image_folder", path=folder, val_fraction=0)
    shutil.copytree(folder / "test", folder / name)
    shutil.rmtree(folder / name / "ant")
    for path in (folder, zip_folder(folder, folder.parent / "p.zip", "p/")):
        data = load("image_folder", path=path)
        assert data.val is not None
        assert data.val.y.tolist() == [1, 1, 1]
        np.testing.assert_array_equal(data.val.x, data.test.x[3:])
        np.testing.assert_array_equal(data.train.x, whole.train.x)
        assert "(3) are the validation split: none is cut from train" in data.notes[0]
    none = load("image_folder", path=folder, val_fraction=0)
    assert none.val is None
    assert "(3) are left out, as data.val_fraction=0" in none.notes[0]
    (folder / name / "cow").mkdir()
    shutil.copy(folder / "test" / "bee" / "0.png", folder / name / "cow" / "0.png")
    with fails("class 'cow' is in val/ but not in train/"):
        load("image_folder", path=folder)


def test_a_picture_of_test_that_was_trained_on_is_said(folder: Path) -> None:
    shutil.copy(folder / "train" / "bee" / "2.png", folder / "test" / "bee" / "z.png")
    said = load("image_folder", path=folder).notes
    assert "pictures of test/ that are in train/, too: 1 (test/bee/z.png" in said[0]


def test_a_zip_with_backslashes(folder: Path, rng: np.random.Generator) -> None:
    truth = load("image_folder", path=folder)
    path = folder.parent / "p.zip"
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted(folder.rglob("*")):
            info = zipfile.ZipInfo("x")
            name = "My pictures/" + str(entry.relative_to(folder)) + "/" * entry.is_dir()
            info.filename = name.replace("/", "\\")
            file.writestr(info, b"" if entry.is_dir() else entry.read_bytes())
    data = load("image_folder", path=path)
    np.testing.assert_array_equal(data.train.x, truth.train.x)
    assert data.class_names == truth.class_names
    assert data.digest == truth.digest
