"""From the options of the group data to the data set, and from that to the task (loss, metrics)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from idl_cli.config.data_options import AnyDataConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.errors import InputError, close_match
from idl_core.training import TASKS, Language, Regression, Task
from idl_datasets import Dataset, DatasetError, TextDataset, Tokenizer, load


def build_dataset(
    config: AnyDataConfig,
    seed: int,
    progress: Callable[[str, int, int | None], None],
    tokenizer: Tokenizer | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """The data set on the CPU. Raises: InputError where it is absent, damaged or unknown.

    Args:
        tokenizer: of the run that the data are for; None: made for the text.
        class_names: of the run that the data are for; None: the data's own.
    """
    options = {name: value for name, value in as_plain(config).items() if value is not None}
    if tokenizer is not None:
        options["tokenizer"] = tokenizer
    try:
        return load(seed=seed, progress=progress, class_names=class_names, **options)
    except DatasetError as error:
        raise InputError(str(error)) from error


def say_notes(dataset: Dataset, say: Callable[[str], None]) -> None:
    """Say what was done to the user's data that they may not expect."""
    for note in dataset.notes:
        say(f"data={dataset.name}: {note}")


def build_task(dataset: Dataset, monitor: str = "loss") -> Task:
    """The task of a data set: its loss and metrics, on its device.

    Raises: InputError where `monitor` is none of its metrics.
    """
    task = TASKS[dataset.task]
    if dataset.task == "regression":  # metrics in the data's own units
        task = Regression(dataset.normalisation.center, dataset.normalisation.scale)
    if isinstance(dataset, TextDataset):
        task = Language(dataset.chars_per_token)
    if monitor not in task.metric_names:
        raise InputError(
            f"trainer.monitor={monitor}: {dataset.name} has {', '.join(task.metric_names)}."
            f"{close_match(monitor, task.metric_names)}"
        )
    return task
