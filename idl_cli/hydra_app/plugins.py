"""Hydra's launchers and sweepers: whether they are installed, their settings, their errors."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ValidationError

from idl_cli.errors import InputError
from idl_cli.hydra_app.sweep_jobs import HIGHER_IS_BETTER

# plugin's package -> the extra of ours that installs it
_EXTRAS = {
    "hydra_joblib_launcher": "sweep",
    "hydra_optuna_sweeper": "sweep",
    "hydra_submitit_launcher": "cluster",
    "hydra_ray_launcher": "ray",
}

# The choices that conf/hydra has itself, with settings for this program.
_OWN = {"launcher": ("joblib", "submitit_local", "submitit_slurm", "ray"), "sweeper": ("optuna",)}


# What plugins say of their settings' types, by their `_target_`.
_typed: dict[str, DictConfig] = {}


def prefer_own_choices() -> None:
    """Make conf/hydra win over the defaults that plugins register under the same names."""
    Plugins.instance()  # it registers theirs
    registered: dict[str, dict[str, Any]] = ConfigStore.instance().repo.get("hydra", {})
    for group, names in _OWN.items():
        for name in names:
            theirs = registered.get(group, {}).pop(f"{name}.yaml", None)
            if theirs is not None:
                _typed[str(theirs.node["_target_"])] = theirs.node


def check_plugins(config: DictConfig) -> None:
    """Check that the launcher and the sweeper are installed, and their settings of the right types.

    Raises: InputError with what installs them, or with what is wrong with a setting.
    """
    for kind in ("launcher", "sweeper"):
        target = str(OmegaConf.select(config, f"hydra.{kind}._target_"))
        package = target.split(".")[1] if target.startswith("hydra_plugins.") else None
        if package in _EXTRAS and not _is_installed(package):
            choice = config.hydra.runtime.choices[f"hydra/{kind}"]
            extra = _EXTRAS[package]
            raise InputError(
                f"hydra/{kind}={choice}: it is not installed; pip install 'idl[{extra}]'"
            )
        _check_types(f"hydra.{kind}", config.hydra[kind])
        if package == "hydra_optuna_sweeper":
            import optuna

            _check_something_to_search(config)
            _check_storage(config.hydra.sweeper.get("storage"))
            optuna.logging.set_verbosity(optuna.logging.WARNING)  # the table has the trials


def _check_types(group: str, settings: DictConfig) -> None:
    """Check the settings of a plugin by the types that it registered for them."""
    types = _typed.get(str(settings.get("_target_")))
    for key in map(str, settings):
        value = OmegaConf.select(settings, key)
        if types is None or key not in types or value is None:
            continue
        try:
            OmegaConf.merge(types, {key: value})
        except ValidationError as error:
            raise InputError(f"{group}.{key}={value}: {str(error).splitlines()[0]}") from error


def _check_something_to_search(config: DictConfig) -> None:
    sweeper, words = config.hydra.sweeper, list(config.hydra.overrides.task)
    if any(sweeper.get(key) for key in ("params", "search_space", "custom_search_space")):
        return
    typed = OverridesParser.create().parse_overrides(words)
    if not any(word.is_sweep_override() for word in typed):
        raise InputError(
            f"hydra/sweeper=optuna: all of its {sweeper.n_trials} trials would be the same; give a "
            "setting a range, as 'optimizer.lr=tag(log,interval(1e-4,1e-1))', or several values"
        )


def _check_storage(storage: object) -> None:
    """Refuse a database that Optuna cannot use: version 2 fails on SQLAlchemy 2 (hydra#2562)."""
    if not isinstance(storage, str):
        return
    try:
        optuna, alchemy = (_major(name) for name in ("optuna", "sqlalchemy"))
    except importlib.metadata.PackageNotFoundError:
        return
    if optuna < 3 and alchemy >= 2:
        raise InputError(
            f"hydra.sweeper.storage={storage}: Optuna {optuna} cannot use SQLAlchemy {alchemy}; "
            "pip install 'sqlalchemy<2', or leave it out: sweep.resume= goes on without"
        )


def _major(package: str) -> int:
    return int(importlib.metadata.version(package).partition(".")[0])


def set_direction(config: DictConfig) -> None:
    """Set the direction of a search: maximize or minimize the monitored metric.

    Raises: InputError where the other way was typed.
    """
    sweeper = config.hydra.sweeper
    if "direction" not in sweeper or isinstance(sweeper.direction, ListConfig):
        return
    typed = sweeper.direction
    monitor = OmegaConf.select(config, "trainer.monitor")
    right = "maximize" if monitor in HIGHER_IS_BETTER else "minimize"
    if typed is not None and str(typed).lower() != right:
        raise InputError(
            f"hydra.sweeper.direction={typed}: the best trainer.monitor={monitor} is found by "
            f"{right}; leave it out"
        )
    sweeper.direction = right


def is_pool(launcher: DictConfig) -> bool:
    """Whether a launcher runs jobs in a pool of processes, each several jobs in turn."""
    return str(OmegaConf.select(launcher, "_target_")).endswith(".JoblibLauncher")


def launcher_errors() -> tuple[type[BaseException], ...]:
    """The errors of launchers about a job without a result: killed, cancelled, out of memory.

    Only of those that are in use: none is imported for this.
    """
    found = []
    for module, name in (
        ("submitit.core.utils", "UncompletedJobError"),
        ("submitit.core.utils", "FailedJobError"),
        ("joblib.externals.loky.process_executor", "BrokenProcessPool"),
        ("ray.exceptions", "RayError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.{package}") is not None
    except ModuleNotFoundError:
        return False
