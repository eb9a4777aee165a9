"""Plain values (from YAML or the command line) checked and read into dataclasses.

A wrong value is an InputError: one line that names its key and what would be right. Nothing here
can run code: values become numbers, words, lists of these, and our own dataclasses. A `_target_`,
by which Hydra would call anything, is refused anywhere.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from idl_cli.config.bounds import Range
from idl_cli.config.misspelt_keys import unknown_key
from idl_cli.errors import InputError, close_match

T = TypeVar("T")


def read_settings(kind: type[T], values: object, key: str = "") -> T:
    """Read nested plain values into the dataclass `kind`, checking every one.

    Args:
        key: dotted path of `values`, for messages.

    Raises: InputError naming the key, the value and what would be right.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{key or 'the configuration'}={_shown(values)}: it is a group of settings"
        )
    names = names_of(kind)
    if "name" in values and names != ("",):
        _choice(names, values["name"], _join(key, "name"))
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name == "_target_":
            raise InputError(
                f"{_join(key, '_target_')}={_shown(values[name])}: a configuration may not name "
                "code to call; models and data are chosen by name"
            )
        if name not in fields:
            raise InputError(unknown_key(_join(key, str(name)), [_join(key, f) for f in fields]))
    hints = annotations_of(kind)  # type: ignore[arg-type]
    read = {
        name: read_value(hints[name], values[name], _join(key, name))
        for name in fields
        if name in values
    }
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if name not in read and needed:
            raise InputError(f"{_join(key, name)} is missing")
    try:
        return kind(**read)
    except ValueError as error:  # of __post_init__: it begins with the name of the field
        raise InputError(_join(key, str(error))) from error


def read_value(hint: Any, value: object, key: str) -> Any:
    """Read one value as the type of an annotation. Raises: InputError."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *bounds = get_args(hint)
        number = read_value(inner, value, key)
        for bound in bounds:
            if isinstance(bound, Range) and not bound.holds(number):
                raise InputError(f"{key}={_shown(value)}: it must be {bound}")
        return number
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        options = [option for option in get_args(hint) if option is not type(None)]
        return read_value(_option(options, value, key), value, key)
    if origin is Literal:
        return _choice(get_args(hint), value, key)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{key}={_shown(value)}: it must be a list, such as [100,50]")
        inner = get_args(hint)[0]
        return tuple(read_value(inner, item, f"{key}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return read_settings(hint, value, key)  # type: ignore[arg-type]
    return _plain(hint, value, key)


def _option(options: list[Any], value: object, key: str) -> Any:
    """The option of a group (a class with a `name`) that `value` chooses."""
    if len(options) == 1:
        return options[0]
    by_name = {name: option for option in options for name in names_of(option)}
    if not isinstance(value, Mapping):
        raise InputError(f"{key}={_shown(value)}: choose from {', '.join(by_name)}.")
    return by_name[_choice(tuple(by_name), value.get("name"), f"{key}.name")]


def _choice(choices: tuple[Any, ...], value: object, key: str) -> Any:
    if isinstance(value, bool) and "on" in choices:
        value = "on" if value else "off"  # which YAML 1.1 reads as true and false
    # precision=32 is typed as a number and meant as a name.
    if str(value) in choices and not isinstance(value, bool):
        return str(value)
    raise InputError(
        f"{key}={_shown(value)}: choose from {', '.join(choices)}."
        f"{close_match(str(value), choices)}"
    )


def _plain(kind: type, value: object, key: str) -> Any:
    if isinstance(value, bool):
        if kind is bool:
            return value
    elif kind is str and isinstance(value, str | int | float):
        if key.endswith(("path", "root")):
            home_is_known(str(value), key)
        return str(value)
    elif kind in (int, float) and isinstance(value, str | int | float):
        try:
            number = float(value)  # a word too: YAML 1.1 reads 1e-3 as one
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and (kind is float or number.is_integer()):
            return number if kind is float else int(value if isinstance(value, int) else number)
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}[kind]
    raise InputError(f"{key}={_shown(value)}: it must be {wanted}")


def home_is_known(path: str, key: str) -> None:
    """Raise InputError for `~name` of a user that this machine does not have."""
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{key}={_shown(path)}: there is no such user here") from error


def names_of(option: type) -> tuple[str, ...]:
    """The names of a group's option (one class can have several); ('',) for other classes."""
    hint = annotations_of(option).get("name")
    return get_args(hint) if get_origin(hint) is Literal else ("",)


@functools.cache
def annotations_of(kind: type) -> dict[str, Any]:
    """The types of a class's fields, resolved, bounds included."""
    return get_type_hints(kind, include_extras=True)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values, the reverse of reading it; tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(inner) for name, inner in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def known_keys(kind: type) -> dict[str, list[str]]:
    """The dotted keys that a configuration class takes, all options of its groups together.

    Returns: key -> the options that have it ('model.rank' -> ['implicit']); none at the top.
    """
    keys: dict[str, list[str]] = {}
    for group, hint in annotations_of(kind).items():
        keys[group] = []
        for option in (hint, *get_args(hint)):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                for name in annotations_of(option):
                    keys.setdefault(f"{group}.{name}", []).extend(names_of(option))
    return keys
