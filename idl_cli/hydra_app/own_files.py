"""The YAML files of the user, checked before Hydra composes them: it names no file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra._internal.utils import get_args_parser
from omegaconf._utils import get_yaml_loader

from idl_cli.errors import InputError
from idl_cli.hydra_app.hydra_errors import yaml_mistake

_GLOBAL = "# @package _global_"


def check_own_files(words: Sequence[str]) -> None:
    """Check the files in the user's folders that the words choose.

    Raises: InputError with file and line for one that is broken, empty, no mapping, or an
        experiment that does not say that its settings are the whole configuration's.
    """
    typed = get_args_parser().parse_args([word for word in words if word != "--version"])
    folders = [Path(folder) for folder in (typed.config_dir, typed.config_path) if folder]
    for word in typed.overrides:
        if found := re.fullmatch(r"\+*hydra\.searchpath=\[(.*)\]", word):
            places = (place.strip(" \"'") for place in found[1].split(","))
            folders += [Path(place.removeprefix("file://")) for place in places if place]
    for folder in folders:
        if typed.config_name:
            _check(folder / f"{typed.config_name.removesuffix('.yaml')}.yaml", "")
        for group, choice in _choices(typed.overrides):
            _check(folder / group / f"{choice}.yaml", group)


def _choices(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if "." not in key and "/" not in value:
            for choice in value.strip("[]").split(","):
                yield key.partition("@")[0], choice.strip().removesuffix(".yaml")


def _check(file: Path, group: str) -> None:
    try:
        text = file.read_bytes().decode("utf-8")
        content = yaml.load(text, Loader=get_yaml_loader())
    except OSError:
        return  # not in this folder
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{file}, line {line}: it is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        raise InputError(yaml_mistake(error, file)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())[:200]}") from error
    is_global = re.search(r"^#\s*@package\s+_global_\s*$", text, re.MULTILINE)
    if content is None and not is_global:
        raise InputError(f"{file} is empty: it must have settings, as 'seed: 1'")
    if content is not None and not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"'{str(content)[:40]}'"
        raise InputError(f"{file}, line 1: it must have settings, as 'seed: 1', and is {kind}")
    if group == "experiment" and not is_global:
        raise InputError(
            f"{file}, line 1: '{_GLOBAL}' is missing, which makes its settings those of the whole "
            "configuration"
        )
