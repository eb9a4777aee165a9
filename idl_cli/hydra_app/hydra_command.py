"""Running a command under Hydra, with our exit codes, our errors, and nothing left lying about."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from idl_cli.errors import InputError
from idl_cli.hydra_app.composition import (
    compose_a_run_once,
    copy_no_schema,
    validate_each_shape_once,
)
from idl_cli.hydra_app.plugins import (
    check_plugins,
    first_line,
    is_pool,
    launcher_errors,
    prefer_own_choices,
    set_direction,
)
from idl_cli.hydra_app.refusals import COMPOSITION_ERRORS, refusal
from idl_cli.hydra_app.sweep import conclude_sweep, read_jobs, take_refusals
from idl_cli.hydra_app.sweep_folder import claim_sweep, is_typed, named_folder, resumed_sweep
from idl_cli.processes.ranks import Ranks
from idl_cli.processes.stop_signals import SweepSignals
from idl_cli.record.run_directory import cannot_write, missing_folders, remove_if_empty
from idl_cli.typed_words import typed_word

Values = dict[str, Any]


@dataclass
class Invocation:
    """One call of a command: what its jobs and Hydra's callbacks must tell it.

    Attributes:
        check: raises InputError where the configuration is wrong; called before anything is made.
        made: folders that Hydra makes for the job and that did not exist before.
        sweep: folder of a multirun's jobs; None where it is a single run.
        error: what a single run raised: Hydra would report it in its own way.
        failures: exit codes of a sweep's jobs that failed in this process.
        signals: while a pool of processes runs the jobs: what was to stop them.
    """

    check: Callable[[Values], object]
    made: list[Path] = field(default_factory=list)
    sweep: Path | None = None
    error: BaseException | None = None
    failures: list[int] = field(default_factory=list)
    signals: SweepSignals = field(default_factory=SweepSignals)


_invocation: Invocation | None = None


class BeforeJobs(Callback):
    """Told by Hydra when the configuration is composed and nothing is written yet."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if _invocation is not None:
            with _refusing():
                _invocation.check(plain_values(config))
                _invocation.made = missing_folders(named_folder(config, "hydra.run.dir"))
                _say_if_anew(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if _invocation is not None:
            with _refusing():
                if ranks := Ranks.of_environment():
                    raise InputError(
                        f"-m under {ranks.launcher}: its {ranks.count} ranks would each run the "
                        "sweep; start it once, with trainer.devices= for each job"
                    )
                check_plugins(config)
                set_direction(config)
                _invocation.made = missing_folders(named_folder(config, "hydra.sweep.dir"))
                _invocation.sweep = resumed_sweep(config)
                if _invocation.sweep is None:
                    _say_if_anew(config, "hydra.sweep.dir")
                    _invocation.sweep = claim_sweep(config)
                take_refusals(_invocation.sweep)  # of an earlier attempt that did not conclude
                if is_pool(config.hydra.launcher):
                    _invocation.signals.sweep = _invocation.sweep
                    _invocation.signals.__enter__()


class _Refused(BaseException):
    """Carries an InputError through Hydra, which makes a warning of any Exception in a callback."""


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _Refused from error
    except OmegaConfBaseException as error:
        raise _Refused from InputError(f"{error.full_key}: {str(error).splitlines()[0]}")


def _say_if_anew(config: DictConfig, key: str) -> None:
    """Where to go on was asked of a folder that no other command can have written to, say so."""
    anew = _invocation is not None and _invocation.made and not is_typed(config, key)
    if anew and OmegaConf.select(config, "trainer.resume") == "auto":
        print(f"trainer.resume=auto goes on in {key}=<folder>: this one is new", file=sys.stderr)


def plain_values(config: DictConfig) -> Values:
    """The configuration without Hydra's own part, as plain values. Raises: InputError."""
    try:
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key}=<...> is needed") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise InputError(f"{key}: {str(error).splitlines()[0]}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def run_hydra_command(
    task: Callable[[DictConfig], Any],
    config_name: str,
    arguments: Sequence[str],
    known: Mapping[str, Sequence[str]],
    check: Callable[[Values], object],
) -> int:
    """Compose the configuration that `arguments` ask for and run `task` on it, once or as a sweep.

    Args:
        known: the dotted keys that the configuration can have, see `schema.known_keys`.
        check: raises InputError for a wrong configuration.

    Returns: the exit code: 0; 129, 130 or 143 where a signal ended it; of a sweep 1 or 2 where jobs
        of it failed.
    Raises: InputError, and what a single run's task reported with `report_error`.
    """
    global _invocation
    words, code = list(arguments), 0
    _check_flags(words)
    prefer_own_choices()
    compose_a_run_once()
    copy_no_schema()
    validate_each_shape_once()
    invocation = _invocation = Invocation(check)
    try:
        with _as_if_typed(words):
            hydra.main(version_base="1.3", config_path="pkg://idl_conf", config_name=config_name)(
                task
            )()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        code = 2 if code == 1 else code  # Hydra's for what was typed: --package of nothing
    except KeyboardInterrupt:
        if invocation.sweep is None:
            raise
        code = 130
    except _Refused as refused:
        invocation.error = refused.__cause__
    except COMPOSITION_ERRORS as error:
        if type(error) is not ValueError or not _has_failed(invocation.sweep):
            raise refusal(error, known, words) from error
        # A search that has nothing to choose from: the table tells of its trials.
        print(f"idl: the search gave up: {first_line(error)}", file=sys.stderr)
    except launcher_errors() as error:
        if invocation.sweep is None:
            raise
        print(f"idl: the launcher gave up: {first_line(error)}", file=sys.stderr)
        code = 1
    except OSError as error:  # making its folder; the task's own errors come by `report_error`
        raise cannot_write(Path(str(error.filename)), error) from error
    finally:
        _invocation = None
        invocation.signals.__exit__(None, None, None)
        _tidy(invocation)
    if invocation.error is not None:
        raise invocation.error
    if invocation.signals():
        code = code or invocation.signals.exit_code
    sweep = invocation.sweep
    if sweep is None or not sweep.is_dir():
        return code
    again = typed_word("sweep.resume", sweep) if "sweep.resume" in known else None
    said = bool(invocation.failures) or invocation.signals.sweep is not None
    return conclude_sweep(sweep, code, invocation.failures, again, said=said)


def _has_failed(sweep: Path | None) -> bool:
    """Whether any job of a sweep failed."""
    return sweep is not None and any(job.status == "failed" for job in read_jobs(sweep))


def report_error(error: BaseException) -> None:
    """Have the error of a single run's task raised once Hydra is through."""
    if _invocation is not None:
        _invocation.error = error


def report_failure(exit_code: int) -> None:
    """Have the failure of a sweep's job count in the exit code."""
    if _invocation is not None:
        _invocation.failures.append(exit_code)


def is_sweep_job() -> bool:
    """Whether the task that is running is one job of several."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _tidy(invocation: Invocation) -> None:
    """Remove the folders that were made for jobs that never came to be."""
    if invocation.sweep is not None and invocation.sweep.is_dir():
        inside = [path.name for path in invocation.sweep.iterdir()]
        if inside == ["multirun.yaml"]:
            (invocation.sweep / "multirun.yaml").unlink()
            remove_if_empty([invocation.sweep])
    remove_if_empty(invocation.made)


def _check_flags(words: Sequence[str]) -> None:
    """Refuse wrong flags in our own way; Hydra's parser answers them with its whole usage."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise InputError(f"{message}; --help shows what there is")

    parser.error = refuse  # type: ignore[method-assign]
    if (
        parser.parse_args([word for word in words if word != "--version"]).experimental_rerun
        is not None
    ):
        raise InputError("--experimental-rerun would unpickle a file, which can run code in it")


@contextlib.contextmanager
def _as_if_typed(words: list[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and shows what went wrong in its own way unless told to raise."""
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
