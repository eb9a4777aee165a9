"""The same weights give the same answers as torchidl, the package of the paper's authors."""

from __future__ import annotations

import pytest
import torch

from idl_core import ImplicitFunctionTriu, ImplicitModel

torchidl = pytest.importorskip("torchidl")
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

P, Q, N, M = 12, 4, 30, 8


def both(size: float, **settings) -> tuple[ImplicitModel, torch.nn.Module]:
    """Our model and theirs with the same weights, entries of A of deviation size/N."""
    torch.manual_seed(0)
    tight = {"tol": 3e-7, "grad_tol": 3e-7, "mitr": 1000, "grad_mitr": 1000}
    theirs = torchidl.ImplicitModel(P, Q, N, **tight, **settings)
    ours = ImplicitModel(P, Q, N, projection="global", **tight, **settings)
    weights = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    for name in weights.keys() & {"A", "L", "R"}:
        weights[name] *= size
    ours.load_state_dict(weights)
    theirs.load_state_dict(weights)
    return ours, theirs


def compare(ours: ImplicitModel, theirs: torch.nn.Module, gradients: bool) -> None:
    U = torch.randn(M, P)
    weight = torch.randn(M, Q)
    mine, other = ours(U), theirs(U)
    assert torch.allclose(mine, other, atol=1e-5)
    if gradients:
        (mine * weight).sum().backward()
        (other * weight).sum().backward()
        for name, p in ours.named_parameters():
            assert torch.allclose(p.grad, theirs.get_parameter(name).grad, atol=1e-4), name


@pytest.mark.parametrize("settings", [{}, {"bias": True}, {"no_D": True}], ids=str)
def test_full_rank_inside_the_ball(settings: dict) -> None:
    compare(*both(0.5, **settings), gradients=True)


@pytest.mark.parametrize("size", [1.5, 6.0])
def test_full_rank_outside_of_the_ball(size: float) -> None:
    """Answers only: torchidl's gradient ignores its scaling, which is why ours is compared with
    finite differences instead."""
    compare(*both(size), gradients=False)


@pytest.mark.parametrize("rank", [1, 4])
def test_low_rank_inside_the_ball(rank: int) -> None:
    ours, theirs = both(0.7, is_low_rank=True, rank=rank)
    assert float(ours.R.detach().abs().sum(0).max()) < 0.99
    compare(ours, theirs, gradients=True)


def test_triangular() -> None:
    from torchidl.implicit_function import ImplicitFunctionTriu as TheirTriu

    torch.manual_seed(0)
    theirs = torchidl.ImplicitModel(P, Q, N, f=TheirTriu)
    ours = ImplicitModel(P, Q, N, f=ImplicitFunctionTriu)
    ours.load_state_dict(theirs.state_dict())
    compare(ours, theirs, gradients=True)
