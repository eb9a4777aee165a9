"""Parsing the words after a command that does not use Hydra: flags, options, key=value, others.

Not argparse: it takes the value in `--sort -wall_s` for a flag, abbreviates flags silently, and
answers a mistake with several lines of usage where ours is one line that names what was meant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from idl_cli.errors import InputError, close_match


@dataclass
class Words:
    """What was typed: flags that are on, values by option (in order), and the plain words."""

    flags: set[str] = field(default_factory=set)
    options: dict[str, list[str]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)

    def last(self, option: str) -> str | None:
        """The value of an option; the last one counts where it was given twice."""
        values = self.options.get(option)
        return values[-1] if values else None


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether `--help` or `-h` is among the words."""
    return any(word in ("-h", "--help") for word in arguments)


def parse_words(
    arguments: Sequence[str], flags: Collection[str] = (), options: Collection[str] = ()
) -> Words:
    """Sort words into `flags` (`--json`), `options` (`--sort KEY`, `--sort=KEY`) and plain ones.

    Names are given without dashes. `debug=true` is the dispatcher's own and skipped.

    Raises: InputError for an unknown flag, a missing value, or a value given to a flag.
    """
    words = Words()
    rest = iter(arguments)
    for word in rest:
        if word == "debug=true":
            continue
        if not word.startswith("-") or word == "-":
            words.plain.append(word)
            continue
        name, given, value = word.lstrip("-").partition("=")
        if word.startswith("--") and name in flags:
            if given:
                raise InputError(f"--{name} takes no value, and got '{value}'.")
            words.flags.add(name)
        elif word.startswith("--") and name in options:
            taken = value if given else next(rest, None)
            if not taken:
                raise InputError(f"--{name} needs a value: --{name} {name.upper()}")
            words.options.setdefault(name, []).append(taken)
        else:
            known = [f"--{known}" for known in (*flags, *options, "help")]
            raise InputError(
                f"unknown option '{word}'.{close_match(f'--{name}', known)} "
                f"Options: {', '.join(known)}"
            )
    return words


def parse_settings(
    arguments: Sequence[str], keys: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Plain words and `key=value` pairs, as the commands that follow Hydra's habit take them.

    Raises: InputError for a key that is not in `keys`, a key without a value, or an option.
    """
    plain: list[str] = []
    settings: dict[str, str] = {}
    for word in parse_words(arguments).plain:
        key, given, value = word.partition("=")
        if not given:
            plain.append(word)
            continue
        if key not in keys:
            raise InputError(
                f"unknown key '{key}' in '{word}'.{close_match(key, keys)} Keys: {', '.join(keys)}"
            )
        if not value:
            raise InputError(f"'{key}=' has no value.")
        settings[key] = value
    return plain, settings
