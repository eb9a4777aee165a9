"""One settings object a family, and the same settings by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from idl import (
    GPT,
    AttentionSettings,
    GPTLanguageModel,
    GPTSettings,
    IDLHead,
    ImplicitAttention,
    ImplicitFunctionInf,
    ImplicitFunctionTriu,
    ImplicitGPT,
    ImplicitModel,
    ImplicitRNN,
    ImplicitSettings,
)
from idl_core.functions import ImplicitFunction
from idl_core.models.attention import MultiHeadAttention

NAMES = [field.name for field in dataclasses.fields(ImplicitSettings)]
GIVEN: dict[str, Any] = {
    "mitr": 77,
    "grad_mitr": 78,
    "tol": 1e-5,
    "grad_tol": 2e-5,
    "kappa": 0.5,
    "projection": "ball",
    "activation": "tanh",
    "kernel": "torch",
}


def settings_of(f: ImplicitFunction) -> dict[str, Any]:
    return {name: getattr(f, name) for name in NAMES} | {"activation": f.activation.name}


def test_a_settings_object_and_single_settings_are_the_same() -> None:
    assert list(GIVEN) == NAMES
    whole = ImplicitSettings(**GIVEN)
    for model in (
        ImplicitModel(6, 3, 9, settings=whole),
        ImplicitModel(6, 3, 9, **GIVEN),
        ImplicitRNN(6, 3, 9, 4, settings=whole).recurrent.layer,
        ImplicitRNN(6, 3, 9, 4, **GIVEN).recurrent.layer,
    ):
        assert settings_of(model.f) == GIVEN
        assert (model.f.solver.tol, model.f.solver.max_iter) == (1e-5, 77)
        assert (model.f.adjoint_solver.tol, model.f.adjoint_solver.max_iter) == (2e-5, 78)


def test_what_counts_most() -> None:
    """A name before the settings object, and that, being whole, before the class attributes."""

    class Mine(ImplicitFunctionInf):
        mitr = 500
        kappa = 0.7

    assert Mine().mitr == 500
    assert Mine(mitr=9).mitr == 9
    assert (Mine(mitr=9).kappa, Mine(mitr=None).mitr) == (0.7, 500)
    whole = ImplicitSettings(tol=1e-5)
    f = ImplicitModel(6, 3, 9, Mine, kappa=0.3, settings=whole).f
    assert (f.mitr, f.tol, f.kappa) == (300, 1e-5, 0.3)
    assert whole == ImplicitSettings(tol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionTriu])
def test_a_wrong_setting_is_refused_by_name(f: type[ImplicitFunction], name: str) -> None:
    wrong: Any = "so" if isinstance(GIVEN[name], str) else -1
    for make in (ImplicitSettings, f, lambda **given: ImplicitModel(6, 3, 9, f, **given)):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            make(**{name: wrong})
    mine = type("Mine", (f,), {name: wrong})
    if name != "activation":
        with pytest.raises(ValueError, match=f"^{name} must be"):
            mine()


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: ImplicitModel(6, 3, 9, **given),
        lambda **given: ImplicitRNN(6, 3, 9, 4, **given),
        lambda **given: ImplicitFunctionInf(**given),
        lambda **given: IDLHead(4, 6, 5, **given),
        lambda **given: ImplicitAttention(6, 2, 5, **given),
        lambda **given: ImplicitGPT(11, 8, 5, 2, 2, **given),
    ],
)
def test_an_unknown_setting_is_refused(make: Any) -> None:
    for value in (1, None):
        with pytest.raises(TypeError, match="capa"):
            make(capa=value)


def test_what_is_no_settings_object_is_refused() -> None:
    with pytest.raises(TypeError, match="must be ImplicitSettings, not 300"):
        ImplicitFunctionInf(300)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be AttentionSettings, not 3"):
        ImplicitGPT(11, 8, 5, 2, 2, 0.0, 3)  # type: ignore[arg-type]


def test_every_head_of_a_gpt_has_its_settings() -> None:
    whole = AttentionSettings(3, "lipschitz", True, 2, tol=1e-5, mitr=50)
    tokens = torch.randint(11, (2, 5))
    outputs = []
    for options in ({"attention": whole}, vars(whole)):
        torch.manual_seed(0)
        model = ImplicitGPT(11, 8, 5, 2, 2, **options)
        assert [block.sa.equilibrium.settings for block in model.blocks] == [whole] * 2
        listed = model.blocks[0].sa.to_heads()
        assert [head.settings for head in listed.heads] == [whole] * 2
        assert ImplicitAttention.from_heads(listed).equilibrium.settings == whole
        outputs.append(model(tokens))
    assert torch.equal(*outputs)
    assert IDLHead(4, 8, 5, 3, "lipschitz", True, 2, tol=1e-5, mitr=50).settings == whole


def test_heads_that_differ_in_a_tolerance_are_not_fused() -> None:
    heads = [IDLHead(4, 8, 5, None), IDLHead(4, 8, 5, None, tol=1e-4)]
    with pytest.raises(ValueError, match="settings differ"):
        ImplicitAttention.from_heads(MultiHeadAttention(heads, 8))


@pytest.mark.parametrize("kind", [GPT, ImplicitGPT, GPTLanguageModel])
def test_the_sizes_of_a_gpt(kind: Any) -> None:
    sizes = GPTSettings(11, 8, 5, 2, 2, 0.1)
    assert kind(**vars(sizes)).settings == sizes
    for name in ("vocab_size", "n_embd", "block_size", "n_layer"):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1"):
            kind(**vars(sizes) | {name: 0})
    with pytest.raises(ValueError, match="multiple of n_head"):
        kind(**vars(sizes) | {"n_head": 3})
