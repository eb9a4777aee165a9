"""Reading the options of a request, each with its bounds."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import DatasetError
from .source import Request


def whole_number(request: Request, name: str, default: int) -> int:
    """The option `name`, an integer of at least 1. Raises DatasetError otherwise."""
    value = request.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DatasetError(f"{request.name}: {name}={value}: give a whole number of at least 1.")
    return value


def fraction(request: Request, name: str, default: float) -> float:
    """The option `name`, between 0 and 1, neither included. Raises DatasetError otherwise."""
    value = request.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise DatasetError(f"{request.name}: {name}={value}: give a number between 0 and 1.")
    return float(value)


def choice(request: Request, name: str, choices: Sequence[str]) -> str | None:
    """The option `name`, one of `choices`, or None where it is not given. Raises DatasetError."""
    value = request.options.get(name)
    if value is None or value in choices:
        return None if value is None else str(value)
    raise DatasetError(f"{request.name}: {name}={value}: choose {' or '.join(choices)}.")
