"""What every model of the library must do, whichever it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import idl
from idl import (
    CNN,
    GPT,
    GRU,
    LSTM,
    MLP,
    AttentionSettings,
    GPTLanguageModel,
    IDLHead,
    ImplicitAttention,
    ImplicitFunctionTriu,
    ImplicitGPT,
    ImplicitModel,
    ImplicitRNN,
)

LOW = {"is_low_rank": True, "rank": 2}
Make = Callable[[], nn.Module]

VECTORS: dict[str, Make] = {
    "implicit": lambda: ImplicitModel(6, 3, 9),
    "implicit, low rank": lambda: ImplicitModel(6, 3, 9, **LOW),
    "implicit, ball": lambda: ImplicitModel(6, 3, 9, projection="ball"),
    "implicit, low rank, ball": lambda: ImplicitModel(6, 3, 9, projection="ball", **LOW),
    "implicit, row, bias": lambda: ImplicitModel(6, 3, 9, projection="row", bias=True),
    "implicit, no D": lambda: ImplicitModel(6, 3, 9, no_D=True),
    "implicit, kappa 0": lambda: ImplicitModel(6, 3, 9, kappa=0.0),
    "implicit, gelu": lambda: ImplicitModel(6, 3, 9, activation="gelu"),
    "triangular": lambda: ImplicitModel(6, 3, 9, f=ImplicitFunctionTriu),
    "mlp": lambda: MLP(6, 3, (5,)),
}
SEQUENCES: dict[str, Make] = {
    "rnn": lambda: ImplicitRNN(6, 3, 9, 4),
    "rnn, low rank": lambda: ImplicitRNN(6, 3, 9, 4, **LOW),
    "rnn, ball, bias": lambda: ImplicitRNN(6, 3, 9, 4, projection="ball", bias=True),
    "rnn, triangular": lambda: ImplicitRNN(6, 3, 9, 4, f=ImplicitFunctionTriu),
    "gru": lambda: GRU(6, 3, 4),
    "lstm": lambda: LSTM(6, 3, 4),
}
TOKENS: dict[str, Make] = {
    "gpt": lambda: GPT(11, 8, 5, 2, 2),
    "gpt, listed": lambda: GPTLanguageModel(11, 8, 5, 2, 2),
    **{
        f"implicit gpt, {iterations} iterations, {version}, {'low' if low else 'full'}": (
            lambda iterations=iterations, version=version, low=low: ImplicitGPT(
                11, 8, 5, 2, 2, 0.0, AttentionSettings(iterations, version, **(LOW if low else {}))
            )
        )
        for iterations in (1, 2, None)
        for version in ("softmax", "lipschitz")
        for low in (False, True)
    },
}
STATES: dict[str, Make] = {
    "head": lambda: IDLHead(4, 6, 5),
    "head, solved": lambda: IDLHead(4, 6, 5, None),
    "attention": lambda: ImplicitAttention(6, 2, 5),
    "attention, once": lambda: ImplicitAttention(6, 2, 5, fixed_point_iter=1, **LOW),
}
PICTURES: dict[str, Make] = {"cnn": lambda: CNN((2, 4, 4), 3)}


def inputs(kind: str, m: int, device: str = "cpu") -> Tensor:
    if kind in TOKENS:
        return torch.zeros(m, 5, dtype=torch.long, device=device)
    shape = {**dict.fromkeys(VECTORS, (6,)), **dict.fromkeys(PICTURES, (2, 4, 4))}.get(kind, (5, 6))
    return torch.randn(m, *shape, device=device)


KINDS = VECTORS | SEQUENCES | TOKENS | STATES | PICTURES
every_kind = pytest.mark.parametrize("kind", KINDS)


def output(model: nn.Module, u: Tensor) -> Tensor:
    out = model(u)
    return out[0] if isinstance(out, tuple) else out


@every_kind
def test_empty_batches(kind: str) -> None:
    model = KINDS[kind]()
    out, usual = output(model, inputs(kind, 0)), output(model, inputs(kind, 3))
    assert out.shape == (0, *usual.shape[1:])
    out.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is None or torch.count_nonzero(parameter.grad) == 0


@every_kind
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    """Training on several devices waits for all of them; those without effect get zeros."""
    torch.manual_seed(0)
    model = KINDS[kind]()
    output(model, inputs(kind, 3)).square().sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing


@every_kind
def test_the_meta_device_gives_shapes(kind: str) -> None:
    """Made there, and moved there; forward and backward."""
    usual = output(KINDS[kind](), inputs(kind, 3))
    with torch.device("meta"):
        made = KINDS[kind]()
    for model in (made, KINDS[kind]().to("meta")):
        out = output(model, inputs(kind, 3, "meta"))
        assert out.is_meta
        assert out.shape == usual.shape
        assert out.dtype == usual.dtype
        out.sum().backward()
        assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


@every_kind
def test_shapes_under_fake_tensors(kind: str) -> None:
    """As tools that estimate memory run a model."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    usual = output(KINDS[kind](), inputs(kind, 3))
    with FakeTensorMode():
        out = output(KINDS[kind](), inputs(kind, 3))
        assert out.shape == usual.shape
        out.sum().backward()


def test_models_made_on_the_meta_device_are_filled() -> None:
    with torch.device("meta"):
        model = ImplicitModel(6, 3, 9, projection="ball", **LOW)
    usual = ImplicitModel(6, 3, 9, projection="ball", **LOW)
    model = model.to_empty(device="cpu")
    model.load_state_dict(usual.state_dict())
    U = torch.randn(4, 6)
    assert torch.equal(model(U), usual(U))


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("options", [{}, LOW])
def test_one_iteration_is_ordinary_attention(iterations: int, options: dict) -> None:
    torch.manual_seed(0)
    head = IDLHead(4, 6, 5, iterations, **options)
    head(torch.randn(2, 5, 6)).sum().backward()
    for name, parameter in head.named_parameters():
        has_effect = iterations > 1 or name == "B"
        assert (torch.count_nonzero(parameter.grad) > 0) == has_effect


def test_a_width_is_a_list_of_one() -> None:
    one, listed = idl.MLP(12, 8, 3), idl.MLP(12, 8, [3])
    listed.load_state_dict(one.state_dict())
    U = torch.randn(2, 12)
    assert torch.equal(one(U), listed(U))
    assert one(U).shape == (2, 8)
    assert idl.CNN((1, 8, 8), 3, 4)(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    for wrong in (0, -1, (4, 0), (2.5,)):
        with pytest.raises(ValueError, match="hidden_dims"):
            idl.MLP(12, 8, wrong)
        with pytest.raises(ValueError, match="channels"):
            idl.CNN((1, 8, 8), 3, wrong)
    with pytest.raises(ValueError, match="output_dim"):
        idl.MLP(12, 0)
