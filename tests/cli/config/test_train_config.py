"""The YAML in conf/ and the typed schema are one thing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import idl_conf
from idl_cli.config.model_options import MLPConfig
from idl_cli.config.sim_config import SimConfig
from idl_cli.config.train_config import TrainConfig, train_config
from idl_cli.config.training_options import SGDConfig, TrainerConfig
from idl_cli.config.typed_settings import annotations_of, as_plain, names_of, read_settings
from idl_cli.errors import InputError

CONF = Path(next(iter(idl_conf.__path__)))
GROUPS = ("model", "data", "optimizer", "scheduler", "trainer", "logger", "teacher", "solver")
# Teachers begin smaller than the models they are of, and without bias.
OWN_DEFAULTS = ("data", "teacher")


def options(group: str) -> dict[str, type]:
    """The classes of a group by the name of their YAML file."""
    hints = [annotations_of(kind).get(group) for kind in (TrainConfig, SimConfig)]
    kinds = [
        kind for hint in hints for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)
    ]
    return {name: kind for kind in kinds for name in names_of(kind)}  # type: ignore[arg-type]


def own_values(path: Path) -> dict[str, Any] | None:
    """What a file sets; None for one that begins with another of its group."""
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    starts = values.pop("defaults", [])
    return values if all("override" in str(start) for start in starts) else None


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_has_exactly_the_keys_of_its_class(group: str) -> None:
    kinds = options(group)
    names = set()
    for path in (CONF / group).glob("*.yaml"):
        values = own_values(path)
        if values is None:
            continue
        names.add(path.stem)
        kind = kinds.get(values.get("name", ""), next(iter(kinds.values())))
        assert values.keys() == {field.name for field in dataclasses.fields(kind)}, path
        read_settings(kind, {k: "runs/x" if v == "???" else v for k, v in values.items()})
        assert values.get("name", path.stem) == path.stem
    if len(kinds) > 1:
        assert names == kinds.keys()


def test_the_defaults_of_yaml_and_of_the_classes_agree() -> None:
    for group in GROUPS:
        for path in (CONF / group).glob("*.yaml"):
            values = own_values(path)
            if values is None or group in OWN_DEFAULTS:
                continue
            kind = options(group).get(values.get("name", ""), TrainerConfig)
            assert read_settings(kind, values) == kind(), path


def test_a_configuration_survives_being_written_and_read() -> None:
    values = {
        "name": "x",
        "model": {"name": "mlp", "hidden_dims": [3, 4]},
        "data": {"name": "digits"},
        "optimizer": {"name": "sgd", "lr": "1e-3"},  # a word to YAML 1.1
        "scheduler": {"name": "cosine"},
        "trainer": {"precision": 64, "cuda_graph": False},  # what YAML 1.1 makes of off
        "logger": {"name": "wandb", "tags": ["a"]},
    }
    config = train_config(values)
    assert config.model == MLPConfig(hidden_dims=(3, 4))
    assert config.optimizer == SGDConfig(lr=1e-3)
    assert config.trainer.precision == "64"
    assert config.trainer.cuda_graph == "off"
    assert train_config(yaml.safe_load(yaml.safe_dump(as_plain(config)))) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"name": "implicit", "hidden_dim": True}}, "model.hidden_dim=true"),
        ({"model": {"name": "implicit", "hidden_dim": None}}, "model.hidden_dim=null"),
        ({"model": {"name": "implicit", "_target_": "os.system"}}, "model._target_=os.system"),
        ({"model": {"_target_": "os.system", "_args_": ["x"]}}, "model.name"),
        ({"_target_": "os.system"}, "_target_=os.system"),
        ({"trainer": {"deep": {"_target_": "os.system"}}}, "unknown key 'trainer.deep'"),
        ({"model": ["implicit"]}, "model="),
        ({"data": None}, "data=null"),
        ({"optimizer": {"name": "adam", "weight_deca": 1}}, "mean 'optimizer.weight_decay'?"),
        ({"lr": 1}, "unknown key 'lr'"),
    ],
)
def test_what_a_configuration_from_elsewhere_may_not_hold(
    change: dict[str, Any], said: str
) -> None:
    values: dict[str, Any] = {
        "name": "x",
        "model": {"name": "implicit"},
        "data": {"name": "digits"},
        "optimizer": {"name": "adam"},
        "scheduler": {"name": "constant"},
        "trainer": {},
    }
    train_config(values)
    with pytest.raises(InputError) as caught:
        train_config(values | change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "without"), [("train", {"model": {"sim"}}), ("sim", {"teacher": {"run"}})]
)
def test_the_help_of_a_command_lists_every_choice(
    command: str, without: dict[str, set[str]]
) -> None:
    """Written out, as Hydra would list the groups of all commands for each."""
    values = yaml.safe_load((CONF / "hydra" / "help" / f"{command}.yaml").read_text())
    parts = re.split(r"\n(\w+): ", values["template"])
    listed = dict(zip(parts[1::2], parts[2::2], strict=True))
    starts = yaml.safe_load((CONF / f"{command}.yaml").read_text())["defaults"]
    groups = {key for start in starts if isinstance(start, dict) for key in start}
    for group in groups & set(listed):
        choices = {path.stem for path in (CONF / group).glob("*.yaml")} - without.get(group, set())
        if command == "sim" and group in ("data", "model"):
            choices &= options_of(SimConfig, group)
        for choice in choices:
            assert re.search(rf"\b{choice}\b", listed[group]), (group, choice)
    assert groups & set(listed) >= {"data", "model", "logger"}


def options_of(kind: type, group: str) -> set[str]:
    hint = annotations_of(kind)[group]
    return {name for option in (hint, *get_args(hint)) if dataclasses.is_dataclass(option)
            for name in names_of(option)}  # type: ignore[arg-type]  # fmt: skip
