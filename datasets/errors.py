"""The one error of this room, and the small phrases its messages are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class DatasetError(ValueError):
    """The user's data is absent, damaged or wrong.

    The message is one line that says what, where, and what to do about it.
    """


def close_match(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` where one of `choices` is close to `word`, case apart; else nothing."""
    plain: dict[str, str] = {}
    for choice in choices:  # the first of those that differ in case alone
        plain.setdefault(choice.casefold(), choice)
    matches = difflib.get_close_matches(word.casefold(), list(plain), n=1, cutoff=0.6)
    return f" Did you mean '{plain[matches[0]]}'?" if matches else ""


def reason(error: BaseException) -> str:
    """What an exception of another library says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def shortlist(names: Sequence[str]) -> str:
    """The first ten of `names`, with a sign that there are more."""
    shown = ", ".join(names[:10]) or "nothing"
    return f"{shown}, … ({len(names):,} in all)" if len(names) > 10 else shown
