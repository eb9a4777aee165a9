"""data.json: by which a run knows its data again; tokenizer.json: of a text, its vocabulary.

Reading them runs no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from idl_cli.atomic_write import write_whole
from idl_cli.errors import InputError
from idl_datasets import Dataset, DatasetError, TextDataset, Tokenizer, tokenizer_from_state

NAME = "data.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class DataRecord:
    """See `idl_datasets.Dataset` for digest, class_names (in the order of the labels) and notes."""

    name: str
    digest: str
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> DataRecord:
        """That of a data set."""
        return cls(dataset.name, dataset.digest, dataset.class_names, dataset.notes)


def write_data(run: Path, dataset: Dataset) -> None:
    """Save what the data are in a run directory, and of a text the tokenizer."""
    record = asdict(DataRecord.of(dataset))
    write_whole(run / NAME, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if isinstance(dataset, TextDataset):
        state = dataset.tokenizer.state()
        text = json.dumps(state, ensure_ascii=False, sort_keys=True)
        write_whole(run / TOKENIZER, text + "\n")


def read_data(run: Path) -> DataRecord | None:
    """What a run was trained on; None for one of an older idl. Raises: InputError: damaged."""
    path = run / NAME
    try:
        values = json.loads(path.read_text("utf-8"))
        record = DataRecord(
            values["name"],
            values["digest"],
            tuple(values["class_names"]),
            tuple(values["notes"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{path}' is damaged: it does not say what the run learnt from"
        ) from error
    words = (record.name, record.digest, *record.class_names, *record.notes)
    if not all(isinstance(word, str) for word in words):
        raise InputError(f"'{path}' is damaged: it does not say what the run learnt from")
    return record


def class_names_of(run: Path) -> tuple[str, ...] | None:
    """The classes of a run's model in the order of its outputs; None: none are known."""
    record = read_data(run)
    return record.class_names or None if record is not None else None


def check_same_data(run: Path, dataset: Dataset) -> None:
    """Raise InputError where a run was trained on other data than those it is to go on with."""
    record = read_data(run)
    if record is not None and record.digest != dataset.digest:
        raise InputError(
            f"data={dataset.name}: its content is not what '{run}' was trained on "
            f"({dataset.digest[:19]}…, not {record.digest[:19]}…): give back those data, or start "
            "a new run"
        )


def read_tokenizer(run: Path) -> Tokenizer:
    """The tokenizer of a run. Raises: InputError where it is absent or damaged."""
    path = run / TOKENIZER
    try:
        return tokenizer_from_state(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise InputError(f"'{run}' has no {TOKENIZER}: it is no run of a language model") from None
    except (OSError, ValueError) as error:  # DatasetError is a ValueError
        reason = str(error) if isinstance(error, DatasetError) else "it is no JSON"
        raise InputError(f"'{path}' is damaged: {reason}") from error
