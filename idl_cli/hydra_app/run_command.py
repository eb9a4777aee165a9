"""Running a command under Hydra, with idl's own exit codes and errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from idl_cli.errors import InputError
from idl_cli.hydra_app.before_jobs import Refused, check_job_of_sweep
from idl_cli.hydra_app.faster_composition import (
    compose_a_run_once,
    copy_no_schema,
    validate_each_shape_once,
)
from idl_cli.hydra_app.hydra_errors import COMPOSITION_ERRORS, first_line, named_as_typed, refusal
from idl_cli.hydra_app.invocation import Invocation, invocation
from idl_cli.hydra_app.own_files import check_own_files
from idl_cli.hydra_app.plugins import launcher_errors, prefer_own_choices
from idl_cli.hydra_app.readable_words import flags_first, quoted_where_needed
from idl_cli.hydra_app.sweep_end import conclude_sweep
from idl_cli.hydra_app.sweep_jobs import read_jobs
from idl_cli.record.run_directory import cannot_write
from idl_cli.typed_words import typed_word


def run_hydra_command(
    task: Callable[[DictConfig], Any],
    config_name: str,
    arguments: Sequence[str],
    known: Mapping[str, Sequence[str]],
    check: Callable[[dict[str, Any]], object],
) -> int:
    """Compose the configuration that `arguments` ask for and run `task` on it, once or as a sweep.

    Args:
        task: one job; in a sweep launchers call it in other processes, so it is a module's own.
        known: the dotted keys that the configuration can have, see `known_keys`.
        check: raises InputError for a wrong configuration.

    Returns: the exit code: 0; 129, 130 or 143 where a signal ended it; of a sweep 1 or 2 where jobs
        of it failed.
    Raises: InputError, and what a single run raised.
    """
    words = _checked(arguments)
    check_own_files(words)
    prefer_own_choices()
    compose_a_run_once()
    copy_no_schema()
    validate_each_shape_once(check_job_of_sweep)
    with invocation(check) as running:
        code = _run(running, task, config_name, words, known)
    if isinstance(running.error, InputError):
        raise InputError(named_as_typed(str(running.error), words)) from running.error
    if running.error is not None:
        raise running.error
    if running.signals():
        code = code or running.signals.exit_code
    sweep = running.sweep
    if sweep is None or not sweep.is_dir():
        return code
    again = typed_word("sweep.resume", sweep) if "sweep.resume" in known else None
    said = bool(running.failures) or running.signals.sweep is not None
    return conclude_sweep(sweep, code, running.failures, again, said=said)


def _run(
    running: Invocation,
    task: Callable[[DictConfig], Any],
    config_name: str,
    words: list[str],
    known: Mapping[str, Sequence[str]],
) -> int:
    """Call Hydra's main function. Returns: the exit code so far."""
    main = hydra.main(version_base="1.3", config_path="pkg://idl_conf", config_name=config_name)
    try:
        with _as_if_typed(words):
            main(task)()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return 2 if code == 1 else code  # Hydra's for what was typed: --package of nothing
    except KeyboardInterrupt:
        if running.sweep is None:
            raise
        return 130
    except Refused as refused:
        running.error = refused.__cause__
    except COMPOSITION_ERRORS as error:
        if type(error) is not ValueError or not _has_failed(running.sweep):
            raise refusal(error, known, words) from error
        # A search that has nothing to choose from: the table has its trials.
        print(f"idl: the search gave up: {_named(error)}", file=sys.stderr)
    except launcher_errors() as error:
        if running.sweep is None:
            raise
        print(f"idl: the launcher gave up: {_named(error)}", file=sys.stderr)
        return 1
    except OSError as error:  # making its folder; a job's own errors come by its outcome
        key = "hydra.run.dir" if running.sweep is None else "hydra.sweep.dir"
        raise cannot_write(Path(str(error.filename)), error, key) from error
    return 0


def _has_failed(sweep: Path | None) -> bool:
    """Whether any job of a sweep failed."""
    return sweep is not None and any(job.status == "failed" for job in read_jobs(sweep))


def _named(error: BaseException) -> str:
    """An error's class and the first line of its message."""
    line = first_line(str(error))[:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _checked(arguments: Sequence[str]) -> list[str]:
    """The words as Hydra can read them. Raises: InputError for a wrong flag.

    Hydra's parser answers that with its whole usage.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise InputError(f"{message}; --help shows what there is")

    parser.error = refuse  # type: ignore[method-assign]
    words = flags_first(arguments, parser)
    typed = parser.parse_args([word for word in words if word != "--version"])
    if typed.experimental_rerun is not None:
        raise InputError("--experimental-rerun would unpickle a file, which can run code in it")
    if typed.shell_completion:
        raise InputError("--shell-completion: Hydra's would complete another command than idl's")
    count = len(typed.overrides)
    flags = words[: len(words) - count]
    return [*flags, *quoted_where_needed(typed.overrides, sweep=typed.multirun)]


@contextlib.contextmanager
def _as_if_typed(words: list[str]) -> Iterator[None]:
    """Put the words where Hydra reads them, and have it raise instead of printing tracebacks."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
