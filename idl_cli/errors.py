"""Errors that the user reads as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """The user's input is wrong: configuration, data, checkpoint or usage.

    The message is one line that names the key, the value and what would be right. `idl` prints it
    without a traceback and exits with 2.
    """


class RunFailed(Exception):
    """A run could not be finished for a reason that is neither wrong input nor a bug of ours.

    The message is one line, printed without a traceback; the exit code is 1.
    """


def close_match(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` where one of `choices` is close to `word`, else an empty string."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
