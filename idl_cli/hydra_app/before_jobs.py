"""Hydra's callback: checks a composed configuration before anything is written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from idl_cli.errors import InputError
from idl_cli.hydra_app.hydra_job import plain_values
from idl_cli.hydra_app.invocation import Invocation, current
from idl_cli.hydra_app.plugins import check_plugins, is_pool, set_direction
from idl_cli.hydra_app.sweep_folder import claim_sweep, is_typed, named_folder, resumed_sweep
from idl_cli.hydra_app.sweep_jobs import take_refusals
from idl_cli.processes.ranks import Ranks


class BeforeJobs(Callback):
    """Called by Hydra when the configuration is composed and nothing is written yet."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (invocation := current()) is not None:
            with _refusing():
                invocation.check(plain_values(config))
                invocation.will_make(named_folder(config, "hydra.run.dir"))
                _warn_of_new_folder(invocation, config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (invocation := current()) is not None:
            with _refusing():
                if ranks := Ranks.of_environment():
                    raise InputError(
                        f"-m under {ranks.launcher}: its {ranks.count} ranks would each run the "
                        "sweep; start it once, with trainer.devices= for each job"
                    )
                check_plugins(config)
                set_direction(config)
                invocation.will_make(named_folder(config, "hydra.sweep.dir"))
                invocation.sweep = resumed_sweep(config)
                if invocation.sweep is None:
                    _warn_of_new_folder(invocation, config, "hydra.sweep.dir")
                    invocation.sweep = claim_sweep(config)
                take_refusals(invocation.sweep)  # of an earlier attempt that did not conclude
                if is_pool(config.hydra.launcher):
                    invocation.signals.sweep = invocation.sweep
                    invocation.signals.__enter__()


def check_job_of_sweep(config: DictConfig) -> None:
    """Check what a job is told before the first of its sweep runs. Raises: Refused."""
    if (invocation := current()) is not None:
        with _refusing():
            invocation.check(plain_values(config))


class Refused(BaseException):
    """Carries an error, its cause, through Hydra.

    Hydra turns every Exception of a callback into a warning and goes on.
    """


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OmegaConfBaseException as error:
        raise Refused from InputError(f"{error.full_key}: {str(error).splitlines()[0]}")
    except OSError as error:  # a folder that was named: its name is too long, it is another user's
        shown = str(error.filename)
        shown = shown if len(shown) <= 200 else shown[:197] + "..."
        raise Refused from InputError(f"cannot read '{shown}' ({error.strerror or error})")
    except Exception as error:  # a bug of ours is one, and no warning either
        raise Refused from error


def _warn_of_new_folder(invocation: Invocation, config: DictConfig, key: str) -> None:
    """Say that trainer.resume=auto finds nothing in a folder that no other command writes to."""
    anew = invocation.made and not is_typed(config, key)
    if anew and OmegaConf.select(config, "trainer.resume") == "auto":
        print(f"trainer.resume=auto goes on in {key}=<folder>: this one is new", file=sys.stderr)
