"""What was typed, put so that Hydra can read it: flags first, and awkward values in quotes.

Hydra's grammar has no `~`, no letters beyond ASCII, no `=`, `#` or parentheses in a value that is
not quoted (hydra#1577, #1647, #2891), and a shell has eaten the quotes of whoever typed them.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from idl_cli.typed_words import hydra_word

_SETTING = re.compile(r"(\+{0,2}[A-Za-z_][\w./@-]*)=(.+)", re.ASCII | re.DOTALL)
# A list, a mapping, quotes, an interpolation, or a function such as choice(1,2): with a mistake in
# it, which is not to be taken for a word.
_STRUCTURE = re.compile(r"""\s*([\[{"']|[a-z_]+\()|.*\$\{""", re.DOTALL)


def flags_first(words: Sequence[str], parser: ArgumentParser) -> list[str]:
    """The words with options before settings: argparse refuses settings on both sides of one."""
    options = parser._option_string_actions
    flags: list[str] = []
    settings: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            settings.append(word)
            continue
        action = options.get(word)
        if action is not None and action.nargs is None and rest:
            flags += [word, rest.pop(0)]
        elif action is not None and action.nargs == "?":
            given = rest.pop(0) if rest and rest[0] in (action.choices or ()) else action.const
            flags.append(f"{action.option_strings[0]}={given}")
        else:
            flags.append(word)
    return [*flags, *settings]


def quoted_where_needed(words: Sequence[str], *, sweep: bool) -> list[str]:
    """The settings that Hydra cannot read, quoted; what is a mistake in its own grammar stays.

    Args:
        sweep: a comma is between the values of several jobs, and not a part of one.
    """
    parser = OverridesParser.create()
    return [word if _is_readable(parser, word) else _quoted(word, sweep) for word in words]


def _is_readable(parser: OverridesParser, word: str) -> bool:
    try:
        parser.parse_override(word)
    except HydraException:
        return False
    return True


def _quoted(word: str, sweep: bool) -> str:
    setting = _SETTING.fullmatch(word)
    if setting is None or _STRUCTURE.match(setting[2]):
        return word
    key, value = setting.groups()
    values = value.split(",") if sweep else [value]
    return f"{key}=" + ",".join(hydra_word("", each).removeprefix("=") for each in values)
