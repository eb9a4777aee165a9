"""Reading IDX files, the format of MNIST and its kin.

The format, from the MNIST page: two zero bytes, a type code, the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..errors import DatasetError, reason

_UINT8 = 0x08  # the one type code that these data sets use


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` dimensions in the IDX file `path`, gzipped where it ends in .gz.

    Raises DatasetError naming the file where it is not exactly that: another type or number of
    dimensions, too few or too many bytes, a damaged gzip.
    """
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            return _read(file, path, ndim)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, reason(error)) from None


def _read(file: BinaryIO, path: Path, ndim: int) -> np.ndarray:
    magic = file.read(4)
    if magic != bytes((0, 0, _UINT8, ndim)):
        expected = f"000008{ndim:02x}"
        raise _damaged(path, f"it begins with {magic.hex() or 'nothing'}, not the IDX {expected}")
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise _damaged(path, "it ends inside its header")
    shape = struct.unpack(f">{ndim}I", header)
    size = math.prod(shape)
    # One byte more than promised: it finds surplus bytes, and makes gzip check its checksum.
    # Read in pieces, since a damaged header can promise more bytes than there is memory.
    data = bytearray()
    while piece := file.read(min(size + 1 - len(data), 1 << 24)):
        data += piece
    if len(data) != size:
        found = f"holds {len(data):,}" if len(data) < size else "holds more"
        raise _damaged(path, f"its header promises {size:,} bytes and it {found}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _damaged(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{path} is damaged: {what}: move it away and get it again.")
