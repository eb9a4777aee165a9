"""The answer to a key that there is not: what it may have been meant for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from idl_cli.errors import close_match


def wrong_key(key: str, known: Mapping[str, Sequence[str]]) -> str:
    """The message about a key that was typed and cannot be set.

    known: every key that there is, with the options of its group that have it.
    """
    if key in known and "." in key:  # of another option of its group
        group = key.split(".")[0]
        options = " and ".join(f"{group}={option}" for option in known[key])
        others = [other for other in known if other != key and other.startswith(f"{group}.")]
        return f"'{key}' is a key of {options}, not of what was chosen.{close_match(key, others)}"
    if key in known:
        return f"'{key}' is a group: {key}=<choice>"
    return unknown_key(key, list(known))


def unknown_key(key: str, known: list[str]) -> str:
    """The message about a key that is not among `known` ones, with its closest match."""
    parent, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if _parent(other) == parent}
    namesakes = [other for other in known if other.rpartition(".")[2] == name]
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return f"unknown key '{key}'. Did you mean '{siblings[near[0]]}'?"
    if namesakes:  # a right name in the wrong group
        return f"unknown key '{key}'. Did you mean '{namesakes[0]}'?"
    if siblings:
        return f"unknown key '{key}'. Keys there: {', '.join(siblings)}"
    return f"unknown key '{key}'.{close_match(key, known)}"


def _parent(key: str) -> str:
    return key.rpartition(".")[0]
