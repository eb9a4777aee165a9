"""Patches of Hydra that avoid composing the same configuration several times."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, flag_override

# Who provides configuration where the user has none of their own.
_OURS = {"hydra", "main", "schema"}
_MAY_SET_MODE = re.compile(r"\+*hydra(\.mode|\.searchpath)?=")


def compose_a_run_once() -> None:
    """Patch `Hydra.get_mode`: do not compose the configuration just to look up `hydra.mode`.

    None of our files sets it. What was typed may, and files of the user's: then Hydra looks.
    """
    Hydra.get_mode = _mode  # type: ignore[method-assign]


_composed_mode = Hydra.get_mode


def _mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    sources = {source.provider for source in self.config_loader.get_search_path().get_path()}
    if sources <= _OURS and not any(map(_MAY_SET_MODE.match, overrides)):
        return None  # what Hydra finds where it is not set: then -m decides
    return _composed_mode(self, config_name, overrides)


def copy_no_schema() -> None:
    """Patch `ConfigRepository.__deepcopy__`: share the registered schemas instead of copying them.

    Hydra copies a repository to give the copy another list of sources (for --help 100 times), and
    copies what it loads from them as well.
    """
    ConfigRepository.__deepcopy__ = _copy  # type: ignore[attr-defined]


def _copy(repository: ConfigRepository, memo: dict[int, Any]) -> ConfigRepository:
    return copy.copy(repository)


_check_job: Callable[[DictConfig], None] | None = None


def validate_each_shape_once(check: Callable[[DictConfig], None]) -> None:
    """Patch `Sweeper.validate_batch_is_legal`: of jobs with the same keys compose one in advance.

    What the others are told is put into that one, and `check` raises where a job's configuration is
    wrong: then none of the sweep has run.

    Jobs that choose the same from the groups and set the same keys differ in values alone, which
    Hydra does not judge. Each job is composed once more where it runs: for a hundred tiny
    jobs composing them here, one after another, takes longer than the jobs.
    """
    global _check_job
    _check_job = check
    Sweeper.validate_batch_is_legal = _validate_shapes  # type: ignore[method-assign, assignment]


_validate_all = Sweeper.validate_batch_is_legal


def _validate_shapes(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
    context = getattr(sweeper, "hydra_context", None)
    assert context is not None
    keys = {word.partition("=")[0] for words in batch for word in words}
    chosen = {key for key in keys if context.config_loader.get_group_options(key.strip("+~"))}
    shapes: dict[frozenset[str], list[Sequence[str]]] = {}
    for words in batch:
        shape = (word if (key := word.partition("=")[0]) in chosen else key for word in words)
        shapes.setdefault(frozenset(shape), []).append(words)
    _validate_all(sweeper, [jobs[0] for jobs in shapes.values()])
    if _check_job is not None:
        for jobs in shapes.values():
            _check_values(sweeper, jobs)


def _check_values(sweeper: Sweeper, jobs: Sequence[Sequence[str]]) -> None:
    """Check the configurations of jobs that differ in values alone, composing one of them."""
    context, master = getattr(sweeper, "hydra_context", None), sweeper.config
    assert context is not None
    assert master is not None
    assert _check_job is not None
    composed = context.config_loader.load_sweep_config(master, list(jobs[0]))
    parser, first = OverridesParser.create(), set(jobs[0])
    for words in jobs:
        with flag_override(composed, ["readonly", "struct"], False):
            for typed in parser.parse_overrides([word for word in words if word not in first]):
                if typed.package is None and not typed.is_delete():
                    OmegaConf.update(composed, typed.key_or_group, typed.value())
        _check_job(composed)
        first = set(words)
