"""One picture file as 8-bit pixels, as a viewer shows it; what had to be changed is told."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Only these decoders: Pillow knows formats that start other programs (EPS runs Ghostscript). MPO is
# what many phones write: a JPEG with a second picture behind it, which no viewer shows.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "AVIF", "PPM", "TIFF")
_WITH_FRAMES = ("PNG", "GIF", "WEBP", "AVIF", "TIFF")
_ORIENTATION = 0x0112  # of EXIF: how the camera was held
_LIGHTEST_OF_DARK = 15  # of 255: what 12 bits stored as 16 leave

DEEP, TRANSPARENT, CMYK = "deep", "transparent", "cmyk"
"""What a picture can be that its pixels here no longer are; see `notes`."""


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 (1 or 3, h, w); was: those of DEEP, TRANSPARENT and CMYK that it was."""

    pixels: np.ndarray
    was: frozenset[str]


def decode(data: bytes) -> Picture:
    """The picture in the bytes of a file, turned as its EXIF says.

    More than 8 bits a channel are cut to the upper 8; what shines through is put on white. Raises
    ValueError where it is several pictures or holds more than 16 bits, and whatever Pillow raises.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data), formats=_available()) as file:
        frames = getattr(file, "n_frames", 1) if file.format in _WITH_FRAMES else 1
        if frames > 1:
            raise ValueError(f"it has {frames} frames or pages, and only one can be the sample")
        was = {DEEP} if _is_deep(file) else set()
        picture: Image.Image = file
        picture.load()
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):
            return Picture(_upper_bits(picture)[None], frozenset({DEEP}))
        if picture.mode == "CMYK":
            was.add(CMYK)
        gray = picture.mode in ("1", "L", "LA", "La")
        if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            if picture.getchannel("A").getextrema() != (255, 255):
                was.add(TRANSPARENT)
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
        mode = "L" if gray else "RGB"
        # Converting to the mode it has would copy it.
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        return Picture(pixels[None] if gray else pixels.transpose(2, 0, 1), frozenset(was))


def _available() -> tuple[str, ...]:
    """Of FORMATS those that this Pillow reads: AVIF is built into newer ones alone."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _is_deep(picture: Image.Image) -> bool:
    """Whether the file has more than 8 bits a channel, which Pillow's modes do not tell of RGB."""
    for tile in getattr(picture, "tile", ()):
        layout = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if ";16" in str(layout[0]):
            return True
        if tile[0].startswith("ppm") and isinstance(layout[-1], int) and layout[-1] > 255:
            return True
    return False


def _upper_bits(picture: Image.Image) -> np.ndarray:
    """The upper 8 of the 16 bits of a gray picture, which are what Pillow takes of coloured ones.

    Raises ValueError where it holds other numbers.
    """
    values = np.asarray(picture)
    sixteen = picture.mode.startswith("I;16") or (
        values.dtype.kind in "iu" and picture.format != "TIFF"  # PNG and PGM have no more
    )
    if not sixteen:
        raise ValueError(f"it has more than 16 bits a channel (mode {picture.mode})")
    return (values.astype(np.int64) >> 8).astype(np.uint8)


def notes(pictures: list[Picture]) -> list[str]:
    """What is said of pictures that are not what their files hold.

    Raises ValueError where those of more than 8 bits use so few of them that 8 leave nothing.
    """
    counts = {kind: sum(kind in picture.was for picture in pictures)
              for kind in (DEEP, TRANSPARENT, CMYK)}  # fmt: skip
    said = []
    if counts[DEEP]:
        lightest = max(int(each.pixels.max()) for each in pictures if DEEP in each.was)
        if lightest <= _LIGHTEST_OF_DARK:
            raise ValueError(
                f"{counts[DEEP]:,} pictures of 16 bits a channel use the lowest 12 alone, of which "
                f"8 bits would leave {lightest + 1} shades: scale them to 0..65535 or 0..255 first"
            )
        said.append(
            f"pictures of 16 bits a channel, of which the upper 8 are taken: {counts[DEEP]:,}"
        )
    if counts[TRANSPARENT]:
        said.append(
            f"pictures that are transparent in parts, shown on white: {counts[TRANSPARENT]:,}"
        )
    if counts[CMYK]:
        said.append(
            f"pictures in CMYK, made RGB without a colour profile (approximately): {counts[CMYK]:,}"
        )
    return said
