"""Running one job that Hydra has composed, in this process or in one of a launcher's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from idl_cli.errors import InputError
from idl_cli.hydra_app.invocation import current
from idl_cli.hydra_app.plugins import is_pool
from idl_cli.hydra_app.sweep_jobs import note_refusal
from idl_cli.jobs.request import JobOutcome, JobRequest
from idl_cli.safe_streams import make_streams_safe


def run_hydra_job(config: DictConfig, run: Callable[[JobRequest], JobOutcome]) -> float | None:
    """Run a composed job, and report its failure to the invocation.

    Returns: what a sweeper goes by; None where the job failed.
    """
    make_streams_safe()  # a launcher may have started this process
    invocation = current()
    try:
        request = job_request(config)
        # Where hydra.job.chdir=true has gone elsewhere: paths are meant as they were typed.
        with contextlib.chdir(HydraConfig.get().runtime.cwd):
            outcome = run(request)
    except Exception as error:
        if invocation is not None:
            invocation.error = error
        return None
    if outcome.error is None:
        return outcome.value
    if request.number is None:
        if invocation is not None:
            invocation.error = outcome.error
        return None
    if invocation is not None:
        invocation.failures.append(outcome.exit_code)
    if not outcome.recorded:
        with contextlib.suppress(OSError):
            sweep = request.sweep or request.output.parent
            note_refusal(request.output, sweep, outcome.message, outcome.exit_code)
    return None


def job_request(config: DictConfig) -> JobRequest:
    """The job that Hydra is running. Raises: InputError where its configuration has no value."""
    hydra = HydraConfig.get()
    in_sweep = hydra.mode == RunMode.MULTIRUN
    named = any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
    return JobRequest(
        values=plain_values(config),
        typed=[str(word) for word in OmegaConf.to_container(hydra.overrides.task) or ()],
        output=Path(hydra.runtime.output_dir),
        output_chosen=in_sweep or named,
        number=int(hydra.job.num) if in_sweep else None,
        sweep=Path(hydra.sweep.dir) if in_sweep else None,
        in_pool=in_sweep and is_pool(hydra.launcher),
        cluster_job=str(hydra.job.id) if "SUBMITIT_FOLDER" in os.environ else None,
    )


def plain_values(config: DictConfig) -> dict[str, Any]:
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
