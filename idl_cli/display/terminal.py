"""Whether what is shown may be drawn, or is to be plain lines."""

from __future__ import annotations

import os
from typing import TextIO


def draws(stream: TextIO) -> bool:
    """Whether a stream is a terminal that takes drawing, and neither CI nor NO_COLOR is set."""
    plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain
