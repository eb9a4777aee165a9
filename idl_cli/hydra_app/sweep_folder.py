"""The folder of a sweep: a new one, or that of the sweep to go on with."""

from __future__ import annotations

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from idl_cli.errors import InputError
from idl_cli.hydra_app.sweep_jobs import read_jobs
from idl_cli.record.run_directory import cannot_write
from idl_cli.typed_words import hydra_word, typed_word


def named_folder(config: DictConfig, key: str) -> Path:
    """The folder that a key of Hydra's names. Raises: InputError where it names none."""
    path = OmegaConf.select(config, key)
    if not path:
        raise InputError(f"{key}=: it must be a folder for what is run; leave it out, or name one")
    return Path(str(path))


def claim_sweep(config: DictConfig) -> Path:
    """The sweep's folder; where two sweeps start in one second, the second takes another name.

    Raises: InputError where the user chose one that has jobs in it.
    """
    wanted = named_folder(config, "hydra.sweep.dir")
    if is_typed(config, "hydra.sweep.dir"):
        anew = OmegaConf.select(config, "trainer.resume") != "auto"
        if anew and wanted.is_dir() and read_jobs(wanted):
            again = f", or go on with them: {typed_word('sweep.resume', wanted)}"
            raise InputError(
                f"hydra.sweep.dir={wanted} holds a sweep's jobs already; choose another"
                + (again if "sweep" in config else "")
            )
        return wanted
    number, path = 1, wanted
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}_{number}")
        except OSError as error:
            raise cannot_write(path, error, "hydra.sweep.dir") from error
        else:
            return _use_folder(config, path)


def resumed_sweep(config: DictConfig) -> Path | None:
    """The folder of the sweep to go on with, if that was asked. Raises: InputError."""
    typed = OmegaConf.select(config, "sweep.resume")
    if typed is None:
        return None
    try:
        path = Path(str(typed)).expanduser()
    except RuntimeError as error:
        raise InputError(f"sweep.resume={typed}: {error}") from error
    if not path.is_dir():
        raise InputError(f"sweep.resume={typed}: there is no such folder")
    if not any((path / name).exists() for name in ("multirun.yaml", "0")):
        raise InputError(f"sweep.resume={typed}: it is no folder of a sweep (-m)")
    if (subdir := _recorded_subdir(path)) and not is_typed(config, "hydra.sweep.subdir"):
        config.hydra.sweep.subdir = subdir
        config.hydra.overrides.hydra.append(hydra_word("hydra.sweep.subdir", subdir))
    return _use_folder(config, path)


def _recorded_subdir(sweep: Path) -> str | None:
    """The `hydra.sweep.subdir` of an earlier sweep; None where multirun.yaml does not have it."""
    try:
        subdir = yaml.safe_load((sweep / "multirun.yaml").read_bytes())["hydra"]["sweep"]["subdir"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return str(subdir)


def _use_folder(config: DictConfig, path: Path) -> Path:
    config.hydra.sweep.dir = str(path)
    # Every job is composed anew from these.
    config.hydra.overrides.hydra.append(hydra_word("hydra.sweep.dir", path))
    return path


def is_typed(config: DictConfig, key: str) -> bool:
    """Whether a key of Hydra's was typed, not only configured."""
    return any(word.startswith(f"{key}=") for word in config.hydra.overrides.hydra)
