"""`key=value` quoted as Hydra and the shell need it, to be shown in messages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

# What neither Hydra nor a shell reads anything into.
_PLAIN = re.compile(r"(?!(null|true|false|nan|inf)$)(\.{0,2}/|[a-z_])[\w./+%@-]*", re.ASCII | re.I)


def hydra_word(key: str, value: str | Path) -> str:
    """`key=value`, quoted so that Hydra reads the value as that text."""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return f"{key}={text}"
    quoted = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (found[2] and '\\"'), text)
    return f'{key}="{quoted}"'


def typed_word(key: str, value: str | Path) -> str:
    """The same, quoted for a shell too."""
    return shlex.quote(hydra_word(key, value))
