"""Gradients against finite differences: every model, activation and projection."""

from __future__ import annotations

import pytest
import torch

from idl_core import ImplicitFunction, ImplicitModel
from idl_core.activations import ACTIVATIONS
from idl_core.wellposed import PROJECTIONS

from .small_models import VARIANTS


def model_and_function(**settings):
    """A float64 model with A outside its ball, and its output as a function of U and parameters."""
    torch.manual_seed(0)
    model = ImplicitModel(
        2, 2, 4, tol=1e-13, grad_tol=1e-13, mitr=2000, grad_mitr=2000, **settings
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    names = [name for name, _ in model.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def output(U, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (U,))

    return output, (torch.randn(3, 2, dtype=torch.float64, requires_grad=True), *values)


@pytest.mark.parametrize("variant", ["plain", "low_rank", "triangular"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck_of_every_activation(activation: str, variant: str) -> None:
    output, inputs = model_and_function(activation=activation, **VARIANTS[variant])
    assert torch.autograd.gradcheck(output, inputs)


@pytest.mark.parametrize("activation", ["relu", "silu"])  # φ' from X, and from the pre-activation
@pytest.mark.parametrize("variant", ["bias", "no_D"])
def test_gradcheck_of_every_layout(variant: str, activation: str) -> None:
    output, inputs = model_and_function(activation=activation, **VARIANTS[variant])
    assert torch.autograd.gradcheck(output, inputs)


@pytest.mark.parametrize("variant", ["plain", "low_rank"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradcheck_of_every_projection(projection: str, variant: str) -> None:
    output, inputs = model_and_function(projection=projection, **VARIANTS[variant])
    assert torch.autograd.gradcheck(output, inputs)


def test_gradcheck_of_an_activation_without_dphi() -> None:
    class Softsign(ImplicitFunction):
        @staticmethod
        def phi(X):
            return X / (1 + X.abs())

    output, inputs = model_and_function(f=Softsign)
    small = tuple(0.1 * p.detach() for p in inputs)
    assert torch.autograd.gradcheck(output, tuple(p.requires_grad_() for p in small))


def test_gradient_scales_with_the_loss() -> None:
    """The adjoint's tolerance is relative: a loss scaled down has its gradient scaled down."""
    torch.manual_seed(0)
    model = ImplicitModel(5, 2, 30)
    U = torch.randn(8, 5)
    (full,) = torch.autograd.grad(model(U).sum(), model.A)
    (tiny,) = torch.autograd.grad(model(U).sum() * 2.0**-20, model.A)
    assert torch.equal(full * 2.0**-20, tiny)
