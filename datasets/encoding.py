"""Text out of the bytes of a user's file: by its mark, else UTF-8; nothing is guessed."""

from __future__ import annotations

import codecs
from pathlib import Path

from .errors import DatasetError, reason

# The marks that editors and spreadsheets put first; that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a spreadsheet, document or other zip: save it as plain text or CSV"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet or document of old: save it as plain text or CSV"),
    (b"\x1f\x8b", "compressed (gzip): unpack it"),
    (b"%PDF", "a PDF: save it as plain text"),
    (b"PAR1", "a Parquet file: name it .parquet"),
)


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 and UTF-32 with their mark; lines end in \\n.

    Raises DatasetError naming the byte that is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}.") from None
    mark, encoding = next(((m, e) for m, e in _MARKS if data.startswith(m)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        byte = len(mark) + error.start
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        what = next((f"it is {w}" for m, w in _OTHER_FORMATS if data.startswith(m)), "")
        raise DatasetError(
            f"{path} is not {name} text: byte {byte} is 0x{data[byte]:02x}, on line "
            f"{data.count(10, 0, byte) + 1}; {what or 'save it as UTF-8'}."
        ) from None
    if "\0" in text:
        what = next((f"it is {w}" for m, w in _OTHER_FORMATS if data.startswith(m)), "")
        raise DatasetError(
            f"{path} is not UTF-8 text: byte {data.index(0)} is 0x00; "
            f"{what or 'save it as UTF-8 (it may be UTF-16 without its mark)'}."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
