"""A model is an ordinary module: copied, pickled, moved, recomputed; and refuses what it cannot."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

from idl_core import Implicit, Phantom, Picard, fixed_point
from idl_core.activations import ACTIVATIONS
from idl_core.functions import ImplicitFunctionInf, ImplicitFunctionTriu
from idl_core.models import ImplicitModel, ImplicitRNN
from idl_core.wellposed import PROJECTIONS

from .small_models import VARIANTS, M, P, make

KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "low rank": {"is_low_rank": True, "rank": 2},
    "triangular": {"f": ImplicitFunctionTriu},
    "silu": {"activation": "silu"},
}


class OwnActivation(ImplicitFunctionInf):
    """φ alone: automatic differentiation supplies φ'."""

    @staticmethod
    def phi(X: Tensor) -> Tensor:
        return torch.atan(X)


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> ImplicitModel:
    torch.manual_seed(0)
    return ImplicitModel(5, 3, 7, **KINDS[request.param]).double()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_copy_of_a_used_model_predicts_the_same(model: ImplicitModel, inputs: Tensor) -> None:
    expected = model(inputs)
    expected.sum().backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(inputs), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_pickled(activation: str, inputs: Tensor) -> None:
    model = ImplicitModel(5, 3, 7, activation=activation).double()
    assert torch.equal(pickle.loads(pickle.dumps(model))(inputs), model(inputs))


def test_a_subclass_is_pickled_with_its_derivative(inputs: Tensor) -> None:
    model = ImplicitModel(5, 3, 7, f=OwnActivation).double()
    twin = pickle.loads(pickle.dumps(model))
    for m in (model, twin):
        m(inputs).square().sum().backward()
    assert torch.equal(twin.A.grad, model.A.grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_changes_no_gradient(
    model: ImplicitModel, inputs: Tensor, reentrant: bool
) -> None:
    model(inputs).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    again = checkpoint(model, inputs.requires_grad_(), use_reentrant=reentrant)
    again.square().sum().backward()
    assert len(expected) == len(list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("with_respect_to", ["inputs", "parameters"])
def test_a_second_derivative_is_refused_wherever_it_is_taken(
    model: ImplicitModel, inputs: Tensor, with_respect_to: str
) -> None:
    inputs.requires_grad_()
    given = [inputs] if with_respect_to == "inputs" else list(model.parameters())
    gradients = grad(model(inputs).square().sum(), given, create_graph=True)
    penalty = torch.stack([g.square().sum() for g in gradients]).sum()
    for target in (inputs, *model.parameters()):
        with pytest.raises(NotImplementedError, match="differentiated once"):
            grad(penalty, target, retain_graph=True)


def test_the_gradient_itself_may_be_had_with_its_graph(
    model: ImplicitModel, inputs: Tensor
) -> None:
    loss = model(inputs).square().sum()
    parameters = list(model.parameters())
    plain = grad(loss, parameters, retain_graph=True)
    for one, other in zip(grad(loss, parameters, create_graph=True), plain, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=1e-12)


def test_hessians_are_refused_rather_than_zero(model: ImplicitModel, inputs: Tensor) -> None:
    with pytest.raises(NotImplementedError, match="differentiated once"):
        torch.autograd.functional.hessian(lambda u: model(u).square().sum(), inputs)


def test_the_rnn_refuses_too() -> None:
    model, series = ImplicitRNN(2, 1, 4, 3), torch.randn(3, 5, 2, requires_grad=True)
    (first,) = grad(model(series).square().sum(), series, create_graph=True)
    for target in model.parameters():
        with pytest.raises(NotImplementedError, match="differentiated once"):
            grad(first.square().sum(), target, retain_graph=True)


def test_any_map_refuses_and_enough_phantom_steps_answer() -> None:
    torch.manual_seed(0)
    W = (torch.randn(6, 6, dtype=torch.float64) * 0.1).requires_grad_()
    x0 = torch.zeros(2, 6, dtype=torch.float64)

    def second(adjoint: Implicit | Phantom) -> Tensor:
        found = fixed_point(lambda x: torch.tanh(x @ W + 1), x0, Picard(tol=1e-13), adjoint)
        (first,) = grad(found.value.pow(3).sum(), W, create_graph=True)
        return grad(first.square().sum(), W)[0]

    with pytest.raises(NotImplementedError, match="Phantom"):
        second(Implicit())
    x = x0
    for _ in range(100):
        x = torch.tanh(x @ W + 1)
    (first,) = grad(x.pow(3).sum(), W, create_graph=True)
    expected = grad(first.square().sum(), W)[0]
    torch.testing.assert_close(second(Phantom(100)), expected)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_projections_differentiate_twice(projection: str) -> None:
    torch.manual_seed(0)
    A = (2 * torch.randn(4, 5, dtype=torch.float64)).requires_grad_()
    project = PROJECTIONS[projection]
    assert torch.autograd.gradgradcheck(lambda a: project(a, 0.9).pow(3), A)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("way", ["forward", "equilibrium"])
def test_copies_at_any_time(variant: str, way: str) -> None:
    """Also between forward and backward, when the last solution is that of a live graph."""
    model = make(**VARIANTS[variant])
    U = torch.randn(M, P)
    out = model(U) if way == "forward" else model.equilibrium(U)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(U), model(U))
        with torch.no_grad():
            twin.B.zero_()
        assert torch.count_nonzero(model.B) > 0
    out.sum().backward()
