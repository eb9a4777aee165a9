"""Implicit functions of a user's own: subclasses that set, replace or count."""

from __future__ import annotations

import pytest
import torch

from idl import ImplicitFunction, ImplicitFunctionInf

from .small_models import VARIANTS, M, P, make

# The subclasses below are those of the documents that the project comes from.


class CustomInf(ImplicitFunctionInf):
    """
    Change the default convergence parameters.
    """

    mitr = grad_mitr = 500
    tol = grad_tol = 1e-6


class ImplicitFunctionInfSiLU(ImplicitFunctionInf):
    """
    An implicit function that uses the SiLU nonlinearity.
    """

    @staticmethod
    def phi(X):
        return X * torch.sigmoid(X)

    @staticmethod
    def dphi(X):
        grad = X.clone().detach()
        sigmoid = torch.sigmoid(grad)
        return sigmoid * (1 + grad * (1 - sigmoid))


class SiLUWithoutDerivative(ImplicitFunctionInf):
    @staticmethod
    def phi(X):
        return X * torch.sigmoid(X)


class FinerSiLU(ImplicitFunctionInfSiLU):
    tol = 1e-7


def test_class_attributes_are_settings() -> None:
    model = make(f=CustomInf)
    assert (model.f.mitr, model.f.grad_mitr, model.f.tol, model.f.grad_tol) == (
        500,
        500,
        1e-6,
        1e-6,
    )
    U = torch.randn(M, P)
    model(U).sum().backward()
    assert model.last_solution.forward.tol == 1e-6
    assert make().f.mitr == 300
    assert make(f=CustomInf, mitr=9).f.mitr == 9  # what is given counts more


@pytest.mark.parametrize("f", [ImplicitFunctionInfSiLU, SiLUWithoutDerivative, FinerSiLU])
def test_custom_nonlinearity(f: type[ImplicitFunction]) -> None:
    model, named = make(f=f), make(activation="silu")
    U = torch.randn(M, P)
    gradients = []
    for one in (model, named):
        Y = one(U)
        gradients.append(torch.autograd.grad(Y.square().sum(), list(one.parameters())))
    assert torch.allclose(model(U), named(U), atol=1e-5)
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("variant", ["plain", "low_rank"])
def test_dphi_is_what_the_gradient_uses(variant: str) -> None:
    class Deaf(ImplicitFunctionInf):
        @staticmethod
        def dphi(X):
            return torch.zeros_like(X)

    model = make(f=Deaf, no_D=True, **VARIANTS[variant])
    model(torch.randn(M, P)).sum().backward()
    assert torch.count_nonzero(model.B.grad) == 0
    assert torch.count_nonzero(model.C.grad) > 0


def test_a_subclass_may_solve_in_its_own_way() -> None:
    class Counted(ImplicitFunctionInf):
        calls = 0

        def solve(self, *arguments):
            type(self).calls += 1
            return super().solve(*arguments)

    model = make(f=Counted)
    model(torch.randn(M, P))
    assert Counted.calls == 1
