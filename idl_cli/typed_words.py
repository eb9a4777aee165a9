"""Settings as a user types them: spelled for Hydra, and for the shell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

# What neither Hydra nor a shell reads anything into.
_PLAIN = re.compile(r"(?!(null|true|false|nan|inf)$)(\.{0,2}/|[a-z_])[\w./+%@-]*", re.ASCII | re.I)


def hydra_word(key: str, value: str | Path) -> str:
    """`key=value` that Hydra reads as that very text, whatever is in it."""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return f"{key}={text}"
    quoted = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (found[2] and '\\"'), text)
    return f'{key}="{quoted}"'


def typed_word(key: str, value: str | Path) -> str:
    """The same as it is typed in a shell."""
    return shlex.quote(hydra_word(key, value))
