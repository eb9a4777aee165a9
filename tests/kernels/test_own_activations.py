"""A user's φ and φ' may overwrite their argument: the result is that of one that does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core import ImplicitFunctionInf, ImplicitFunctionTriu, ImplicitModel, ImplicitRNN


class InPlace(ImplicitFunctionInf):
    @staticmethod
    def phi(X: Tensor) -> Tensor:
        return F.relu(X, inplace=True)


class BothInPlace(InPlace):
    @staticmethod
    def dphi(X: Tensor) -> Tensor:
        return X.gt_(0)


class TriangularInPlace(ImplicitFunctionTriu):
    phi, dphi = InPlace.phi, BothInPlace.dphi


def gradients(model: nn.Module, call: Any, inputs: Tensor) -> list[Tensor]:
    Y = call(inputs)
    found = torch.autograd.grad(Y.sum(), list(model.parameters()), allow_unused=True)
    return [Y.detach(), *(g for g in found if g is not None)]


def check(own: nn.Module, usual: nn.Module, inputs: Tensor, name: str = "forward") -> None:
    usual.load_state_dict(own.state_dict())
    of_own = gradients(own, getattr(own, name), inputs)
    for one, other in zip(of_own, gradients(usual, getattr(usual, name), inputs), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("f", [InPlace, BothInPlace])
@pytest.mark.parametrize("rank", [None, 2, 12])
@pytest.mark.parametrize("name", ["forward", "equilibrium"])
def test_models(name: str, rank: int | None, f: type[ImplicitFunctionInf]) -> None:
    options: dict[str, Any] = {"low_rank": True, "rank": rank} if rank else {}
    own = ImplicitModel(5, 3, 20, f=f, **options).double()
    usual = ImplicitModel(5, 3, 20, kernel="torch", **options).double()
    check(own, usual, torch.randn(7, 5, dtype=torch.float64), name)


@pytest.mark.parametrize("rank", [None, 2])
def test_sequences(rank: int | None) -> None:
    options: dict[str, Any] = {"low_rank": True, "rank": rank} if rank else {}
    own = ImplicitRNN(2, 1, 9, 4, f=BothInPlace, **options).double()
    usual = ImplicitRNN(2, 1, 9, 4, kernel="torch", **options).double()
    check(own, usual, torch.randn(5, 7, 2, dtype=torch.float64))


def test_a_triangular_matrix() -> None:
    own = ImplicitModel(5, 3, 20, f=TriangularInPlace).double()
    usual = ImplicitModel(5, 3, 20, f=ImplicitFunctionTriu).double()
    check(own, usual, torch.randn(7, 5, dtype=torch.float64))


def test_what_is_solved_is_left_as_it_was() -> None:
    model = ImplicitModel(5, 3, 20, f=BothInPlace)
    A, Z = model.effective_A().detach(), torch.randn(7, 20)
    before = Z.clone()
    model.f.solve(A, Z, None, model.last_solution)
    assert torch.equal(Z, before)
