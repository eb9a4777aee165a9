"""Attention heads against loops over positions in float64, and the fused form against the list."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from idl_core import AttentionSettings, IDLHead, ImplicitFunctionWarning
from idl_core.models.attention import (
    CausalSelfAttention,
    Head,
    MultiHeadAttention,
    softmax_attention,
)
from idl_core.models.implicit_attention import KAPPA, ImplicitAttention, lipschitz_attention

VERSIONS = {"softmax": softmax_attention, "lipschitz": lipschitz_attention}
RANKS = {"full": {}, "low_rank": {"is_low_rank": True, "rank": 2}}


def attention_loop(version: str, k, q, v):
    """Position by position, weight by weight: k, q, v (T, h)."""
    out = torch.zeros_like(v)
    for i in range(len(q)):
        weights = []
        for j in range(i + 1):
            if version == "softmax":
                weights.append(math.exp(float(q[i] @ k[j]) / math.sqrt(q.shape[1])))
            else:
                weights.append(math.exp(-float(((q[i] - k[j]) ** 2).sum())))
        total = sum(weights) + (0 if version == "softmax" else 0.25)
        for j, weight in enumerate(weights):
            value = v[j] if version == "softmax" else v[j] / torch.sqrt(v[j] ** 2 + 1)
            out[i] += weight / total * value
    return out


def head_loop(head: IDLHead, u, iterations: int):
    """The equations of the head from X = 0, one sequence (T, n_embd) at a time."""
    A, B, h = head.effective_A()[0], head.B[0], head.head_size
    X = torch.zeros(len(u), 4 * h, dtype=u.dtype)
    for _ in range(iterations):
        pre = X @ A + u @ B
        k, q, v = pre[:, :h], pre[:, h : 2 * h], pre[:, 2 * h :]
        X = torch.cat((pre, attention_loop(head.settings.attention_version, k, q, v)), 1)
    return X[:, 3 * h :]


def a_head(
    iterations, version: str = "softmax", scale: float = 10.0, size: int = 3, **options
) -> IDLHead:
    torch.manual_seed(0)
    head = IDLHead(size, 2 * size, 8, iterations, version, tol=1e-12, **options).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(scale)  # A is then outside its ball
    return head


@pytest.mark.parametrize("version", VERSIONS)
def test_attention_is_that_of_a_loop(version: str) -> None:
    torch.manual_seed(0)
    k, q, v = torch.randn(3, 2, 7, 3, dtype=torch.float64)
    out = VERSIONS[version](k, q, v)
    for b in range(2):
        expected = attention_loop(version, k[b], q[b], v[b])
        torch.testing.assert_close(out[b], expected, atol=1e-12, rtol=0)


def test_lipschitz_weights_of_far_points_do_not_overflow() -> None:
    k = torch.full((1, 4, 3), 1e4)
    out = lipschitz_attention(k, -k, torch.ones(1, 4, 3))
    assert torch.equal(out, torch.zeros(1, 4, 3))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_head_is_its_equations(version: str, rank: str, iterations: int) -> None:
    head = a_head(iterations, version, **RANKS[rank])
    u = torch.randn(2, 8, 6, dtype=torch.float64)
    with torch.no_grad():
        out = head(u)
        for b in range(2):
            expected = head_loop(head, u[b], iterations)
            torch.testing.assert_close(out[b], expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("version", VERSIONS)
def test_head_to_tolerance_is_many_iterations(version: str, rank: str) -> None:
    head = a_head(None, version, scale=1.0, **RANKS[rank])
    u = torch.randn(2, 8, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(head(u)[0], head_loop(head, u[0], 60), atol=1e-10, rtol=0)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("iterations", [1, 2, 3, None])
def test_gradcheck(version: str, rank: str, iterations: int | None) -> None:
    head = a_head(iterations, version, 10.0 if iterations else 1.0, size=2, **RANKS[rank])
    names = [name for name, _ in head.named_parameters()]

    def output(u, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(head, named, (u,))

    u = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    values = [p.detach().clone().requires_grad_() for p in head.parameters()]
    if iterations == 1:  # the first iteration starts from X = 0 and does not read A
        values = [p.requires_grad_(name == "B") for name, p in zip(names, values, strict=True)]
    assert torch.autograd.gradcheck(output, (u, *values))


@pytest.mark.parametrize("rank", RANKS)
def test_norm_is_kept_and_A_is_never_overwritten(rank: str) -> None:
    head = a_head(2, **RANKS[rank])
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head(torch.randn(2, 8, 6, dtype=torch.float64))
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())
    norm = head.effective_A().detach().abs().sum(-1).max()
    assert float(norm) <= KAPPA + 1e-12
    if rank == "full":
        assert float(norm) == pytest.approx(KAPPA)  # the bound is active


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("iterations", [1, 2, None])
def test_fused_and_listed_heads_agree(version: str, rank: str, iterations: int | None) -> None:
    torch.manual_seed(0)
    settings = AttentionSettings(iterations, version, tol=1e-12, **RANKS[rank])
    fused = ImplicitAttention(12, 3, 8, settings=settings).double()
    listed = fused.to_heads()
    back = ImplicitAttention.from_heads(listed)
    u = torch.randn(2, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(listed(u), fused(u), atol=1e-11, rtol=0)
        assert torch.equal(back(u), fused(u))
    assert all(isinstance(head, IDLHead) for head in listed.heads)


def test_fused_and_listed_gradients_agree() -> None:
    torch.manual_seed(0)
    fused = ImplicitAttention(12, 3, 8).double()
    listed = fused.to_heads()
    u = torch.randn(2, 8, 12, dtype=torch.float64)
    for module in (fused, listed):
        module(u).square().sum().backward()
    for number, head in enumerate(listed.heads):
        for name, parameter in head.named_parameters():
            own = fused.equilibrium.get_parameter(name).grad[number]
            torch.testing.assert_close(own, parameter.grad[0], atol=1e-12, rtol=1e-9)


def test_heads_of_different_settings_are_not_fused() -> None:
    heads = [IDLHead(4, 8, 5), IDLHead(4, 8, 5, 3)]
    with pytest.raises(ValueError, match="settings differ"):
        ImplicitAttention.from_heads(MultiHeadAttention(heads, 8))
    with pytest.raises(ValueError, match="must be an IDLHead"):
        ImplicitAttention.from_heads(MultiHeadAttention([Head(4, 8, 5)] * 2, 8))


def test_explicit_heads_and_their_fused_form_agree() -> None:
    torch.manual_seed(0)
    fused = CausalSelfAttention(12, 3, 8)
    heads = [Head(4, 12, 8) for _ in range(3)]
    listed = MultiHeadAttention(heads, 12)
    with torch.no_grad():
        for number, head in enumerate(heads):
            for part, layer in enumerate((head.key, head.query, head.value)):
                layer.weight.copy_(fused.kqv.weight.view(3, 3, 4, 12)[part, number])
        listed.proj.load_state_dict(fused.proj.state_dict())
        u = torch.randn(2, 8, 12)
        torch.testing.assert_close(listed(u), fused(u))


@pytest.mark.parametrize("iterations", [2, None])
def test_attention_is_causal(iterations: int | None) -> None:
    torch.manual_seed(0)
    attention = ImplicitAttention(12, 3, 8, fixed_point_iter=iterations).double()
    u = torch.randn(1, 8, 12, dtype=torch.float64)
    changed = u.clone()
    changed[:, 5:] += 1
    with torch.no_grad():
        assert torch.equal(attention(u)[:, 0], attention(changed)[:, 0])
        torch.testing.assert_close(attention(u)[:, :5], attention(changed)[:, :5])


def test_too_few_iterations_warn() -> None:
    head = IDLHead(3, 6, 8, None, mitr=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head(torch.randn(2, 8, 6))
    assert ImplicitFunctionWarning in {w.category for w in caught}


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="attention_version"):
        IDLHead(3, 6, 8, 2, "sparse")
    with pytest.raises(ValueError, match="fixed_point_iter"):
        IDLHead(3, 6, 8, 0)
    with pytest.raises(ValueError, match="rank"):
        IDLHead(3, 6, 8, 2, "softmax", True)
    with pytest.raises(ValueError, match="multiple"):
        ImplicitAttention(10, 3, 8)
    with pytest.raises(ValueError, match="longer than block_size"):
        IDLHead(3, 6, 8)(torch.randn(1, 9, 6))


def test_conversion_keeps_the_mode() -> None:
    listed = MultiHeadAttention([IDLHead(8, 16, 8), IDLHead(8, 16, 8)], 16, dropout=0.5)
    for training in (True, False):
        fused = ImplicitAttention.from_heads(listed.train(training))
        assert fused.training == training
        assert fused.to_heads().training == training


def test_the_equilibrium_is_solved_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    attention, u = ImplicitAttention(16, 2, 8, fixed_point_iter=None), torch.randn(3, 8, 16)
    with torch.no_grad():  # slow enough to be accelerated
        attention.equilibrium.A.mul_(4)
        attention.equilibrium.B.mul_(20)
    exact = attention(u)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(u)
    found.float().sum().backward()
    assert float((found - exact).detach().abs().max() / exact.detach().abs().max()) < 0.02
