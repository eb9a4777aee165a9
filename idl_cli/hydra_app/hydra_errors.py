"""Errors of Hydra and OmegaConf about wrong input, turned into one line that says what is right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from idl_cli.config.misspelt_keys import wrong_key
from idl_cli.errors import InputError, close_match
from idl_cli.typed_words import typed_word

# What Hydra raises while it composes; a plain ValueError stands for several mistakes there.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


def refusal(
    error: Exception, known: Mapping[str, Sequence[str]], words: Sequence[str]
) -> InputError:
    """The InputError, in one line, for an error of the composition.

    Args:
        known: every dotted key that the command's configuration can have, and in which options.
        words: what was typed.
    """
    if isinstance(error, OverrideParseException):
        return InputError(_unreadable(error, known))
    if isinstance(error, MissingConfigException):
        return InputError(_no_such_choice(error, known))
    if isinstance(error, yaml.MarkedYAMLError):
        return InputError(yaml_mistake(error))
    message = _messages(error)
    if key := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", message):
        return InputError(wrong_key(key[1].split("@")[0], known))
    if re.search(r"Ambiguous value for argument|requires --multirun", message):
        several = re.search(r"'([^']*=[^']*)'", message)
        return InputError(
            f"{several[1] if several else 'a value'}: several values need -m, one job for each; "
            "a list is written key=[a,b]"
        )
    if "Config group override must be a string" in message:
        groups = {"", "hydra", *(key for key in known if "." not in key)}
        word = next((w for w in words if w.lstrip("+~").split("=")[0] in groups), "a group")
        return InputError(f"{word}: settings are written key=value, and groups group=choice")
    if match := re.search(r"Error merging override (\S+)", message):
        cause = first_line(str(error.__cause__ or ""))
        return InputError(f"{match[1]}: {cause}")
    return InputError(first_line(message) or type(error).__name__)


def yaml_mistake(error: yaml.MarkedYAMLError, file: Path | None = None) -> str:
    """Where a YAML file is broken, and what is wrong there."""
    mark = error.problem_mark or error.context_mark
    name = file or (mark.name if mark is not None else "a YAML file")
    line = f", line {mark.line + 1}" if mark is not None else ""
    problem = error.problem or error.context or "it is no YAML"
    if "'\\t'" in problem:
        problem = "a tab, where YAML takes blanks only"
    return f"{name}{line}: {problem}"


def named_as_typed(message: str, words: Sequence[str]) -> str:
    """The message with `data=` for `data.name=`, where it was the group that was typed."""
    found = re.match(r"([\w.]+)\.name=", message)
    typed = [word.lstrip("+").partition("=")[0] for word in words]
    if found is None or f"{found[1]}.name" in typed or found[1] not in typed:
        return message
    return f"{found[1]}={message[found.end() :]}"


def _unreadable(error: OverrideParseException, known: Mapping[str, Sequence[str]]) -> str:
    word = error.override
    if "=" not in word:
        folder = f", as run={word}" if "run" in known and Path(word).is_dir() else ""
        return f"cannot read '{word}': settings are written key=value{folder}"
    detail = re.sub(r"^.*?(?=mismatched|token|extraneous|missing|no viable)", "", error.message)
    key, _, value = word.partition("=")
    plain = typed_word(key, value) if key else "key='\"...\"'"
    return f"cannot read '{word}' ({first_line(detail)}): if that is a text, type {plain}"


def _files(group: str) -> list[Traversable]:
    """Our own files of a group; none where there is no such group."""
    folder = resources.files("idl_conf").joinpath(group)
    return list(folder.iterdir()) if folder.is_dir() else []


def _no_such_choice(error: MissingConfigException, known: Mapping[str, Sequence[str]]) -> str:
    missing = (error.missing_cfg_file or "").removesuffix(".yaml")
    group, _, choice = missing.rpartition("/")
    valid = {name for key, names in known.items() if key.startswith(f"{group}.") for name in names}
    ours = {file.name.removesuffix(".yaml") for file in _files(group)}
    # Of ours, those of this command: idl train has no model=sim. Of users' own files, all.
    options = [
        option
        for option in error.options or ()
        if not option.startswith("_") and (option in valid or option not in ours or valid <= {""})
    ]
    if not missing:
        return first_line(str(error))
    if not group:
        return f"there is no configuration '{missing}'"
    if not options:
        return f"{group}={choice}: there is no group '{group}'.{close_match(group, known)}"
    return f"{group}={choice}: choose from {', '.join(options)}.{close_match(choice, options)}"


def _messages(error: BaseException) -> str:
    """The error's message and that of its cause: Hydra says half of it in each."""
    cause = error.__cause__
    return f"{error}\n{cause}" if cause is not None else str(error)


def first_line(message: str) -> str:
    """The first line that is not empty, without the blanks around it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0] if lines else ""
