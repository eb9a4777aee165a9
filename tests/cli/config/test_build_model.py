"""Every setting of a model family is an option, with the same default, and reaches the model."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from idl import AttentionSettings, ImplicitSettings
from idl_cli.config.build_model import build_model
from idl_cli.config.model_options import AttentionConfig, ImplicitConfig, RNNConfig

FAMILIES: dict[type, type] = {
    ImplicitConfig: ImplicitSettings,
    RNNConfig: ImplicitSettings,
    AttentionConfig: AttentionSettings,
}
OTHERS: dict[str, Any] = {
    "mitr": 77,
    "grad_mitr": 78,
    "tol": 1e-5,
    "grad_tol": 2e-5,
    "kappa": 0.5,
    "projection": "ball",
    "activation": "tanh",
    "kernel": "torch",
    "fixed_point_iter": 3,
    "attention_version": "lipschitz",
    "is_low_rank": True,
    "rank": 2,
}


def plain(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@pytest.mark.parametrize("config", FAMILIES)
def test_options_are_the_settings_of_the_core(config: type) -> None:
    """Each field of the settings: an option of that name, with that default."""
    own, options = plain(FAMILIES[config]()), plain(config())
    # The command line has no function of a user's own: there the default has a name.
    assert {name: options.get(name) for name in own} == own | (
        {"activation": "relu"} if "activation" in own else {}
    )


@pytest.mark.parametrize("config", FAMILIES)
def test_options_reach_the_model(config: type) -> None:
    chosen = {field.name: OTHERS[field.name] for field in dataclasses.fields(FAMILIES[config])}
    if config is AttentionConfig:
        dataset: Any = SimpleNamespace(name="any", input_shape=(5,), output_dim=11)
        model: Any = build_model(config(n_embd=8, n_head=2, **chosen), dataset)
        assert plain(model.blocks[0].sa.equilibrium.settings) == chosen
        return
    dataset = SimpleNamespace(name="any", input_shape=(5, 2), output_dim=3)
    model = build_model(config(**chosen), dataset)
    f = (model if config is ImplicitConfig else model.recurrent.layer).f
    found = {name: getattr(f, name) for name in chosen}
    assert found | {"activation": f.activation.name} == chosen
