"""tokenizer.json: the vocabulary of a run's language model; reading it runs no code."""

from __future__ import annotations

import json
from pathlib import Path

from idl_cli.atomic_write import write_whole
from idl_cli.errors import InputError
from idl_datasets import DatasetError, Tokenizer, tokenizer_from_state

NAME = "tokenizer.json"


def write_tokenizer(run: Path, tokenizer: Tokenizer) -> None:
    """Save it in a run directory."""
    text = json.dumps(tokenizer.state(), ensure_ascii=False, sort_keys=True)
    write_whole(run / NAME, text + "\n")


def read_tokenizer(run: Path) -> Tokenizer:
    """The tokenizer of a run. Raises: InputError where it is absent or damaged."""
    path = run / NAME
    try:
        return tokenizer_from_state(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise InputError(f"'{run}' has no {NAME}: it is no run of a language model") from None
    except (OSError, ValueError) as error:  # DatasetError is a ValueError
        reason = str(error) if isinstance(error, DatasetError) else "it is no JSON"
        raise InputError(f"'{path}' is damaged: {reason}") from error
