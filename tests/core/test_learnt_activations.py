"""An activation with parameters of its own is trained with the model, or refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from idl import ImplicitFunctionInf, ImplicitFunctionTriu, ImplicitModel, ImplicitRNN


class Learnt(ImplicitFunctionInf):
    phi = nn.PReLU(dtype=torch.float64)


class LearntPerState(ImplicitFunctionInf):
    phi = staticmethod(nn.PReLU(7, dtype=torch.float64))


class NothingToLearn(ImplicitFunctionInf):
    phi = nn.ReLU(inplace=True)


def unrolled(model: ImplicitModel, U: Tensor) -> Tensor:
    """The model's equations, differentiated through 200 iterations."""
    A, phi = model.effective_A(), model.f.phi
    Z = U @ model.B.T
    X = torch.zeros(len(U), model.hidden_dim, dtype=U.dtype)
    for _ in range(200):
        X = phi(X @ A.T + Z)
    return X @ model.C.T + U @ model.D.T


@pytest.mark.parametrize("f", [Learnt, LearntPerState])
@pytest.mark.parametrize("options", [{}, {"is_low_rank": True, "rank": 2}, {"kernel": "torch"}])
def test_gradients_are_those_of_the_iterations(f: type, options: dict) -> None:
    torch.manual_seed(0)
    model = ImplicitModel(5, 3, 7, f=f, tol=1e-12, grad_tol=1e-12, **options).double()
    assert "phi.weight" in dict(model.named_parameters())
    U = torch.randn(4, 5, dtype=torch.float64)
    weight = torch.randn(4, 3, dtype=torch.float64)
    parameters = list(model.parameters())
    Y = model(U)
    truth = unrolled(model, U)
    assert torch.allclose(Y, truth, atol=1e-10)
    found = torch.autograd.grad((Y * weight).sum(), parameters)
    expected = torch.autograd.grad((truth * weight).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-9)
    assert float(found[-1].abs().max()) > 1e-3
    assert model.last_solution.forward.all_converged
    (of_X,) = torch.autograd.grad(model.equilibrium(U).sum(), model.phi.weight)[:1]
    assert float(of_X.abs().max()) > 0
    with torch.no_grad():
        assert torch.allclose(model(U), truth, atol=1e-10)


def test_a_parameter_that_a_function_closes_over() -> None:
    slope = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    class Closure(ImplicitFunctionInf):
        @staticmethod
        def phi(X: Tensor) -> Tensor:
            return torch.where(X > 0, X, slope * X)

    torch.manual_seed(0)
    model = ImplicitModel(5, 3, 7, f=Closure, tol=1e-12, grad_tol=1e-12).double()
    U = torch.randn(4, 5, dtype=torch.float64)
    (found,) = torch.autograd.grad(model(U).sum(), slope)
    (expected,) = torch.autograd.grad(unrolled(model, U).sum(), slope)
    assert float(found) == pytest.approx(float(expected), rel=1e-8)
    assert float(found) != 0


def test_a_sequence() -> None:
    torch.manual_seed(0)
    model = ImplicitRNN(2, 1, 6, 3, f=Learnt, tol=1e-12, grad_tol=1e-12).double()
    x = torch.randn(4, 5, 2, dtype=torch.float64)
    layer = model.recurrent.layer
    loss = model(x).square().sum()
    (found,) = torch.autograd.grad(loss, layer.phi.weight)
    step = 1e-6
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            layer.phi.weight += sign * step
            ends.append(float(model(x).square().sum()))
            layer.phi.weight -= sign * step
    assert float(found) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
    assert model.last_solution.forward.all_converged


def test_each_model_has_its_own() -> None:
    """Two models of one class do not train each other's φ; copies keep theirs."""
    one, two = ImplicitModel(5, 3, 7, f=Learnt).double(), ImplicitModel(5, 3, 7, f=Learnt).double()
    assert one.phi.weight is not two.phi.weight
    with torch.no_grad():
        one.phi.weight.fill_(-0.7)
    assert two.phi.weight.item() == 0.25
    U = torch.randn(4, 5, dtype=torch.float64)
    for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(twin(U), one(U))
        with torch.no_grad():
            twin.phi.weight.fill_(0.5)
        assert not torch.equal(twin(U), one(U))
    assert one.f.phi is one.phi
    two.load_state_dict(one.state_dict())
    assert torch.equal(two(U), one(U))


def test_it_is_trained() -> None:
    torch.manual_seed(0)
    target, model = (ImplicitModel(5, 3, 7, f=Learnt).double() for _ in range(2))
    model.load_state_dict(target.state_dict())
    with torch.no_grad():
        target.phi.weight.fill_(0.9)
    U = torch.randn(64, 5, dtype=torch.float64)
    optimiser = torch.optim.Adam([model.phi.weight], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        (model(U) - target(U).detach()).square().mean().backward()
        optimiser.step()
    assert model.phi.weight.item() == pytest.approx(0.9, abs=0.01)


def test_frozen_or_nothing_to_learn_is_solved_as_any_other() -> None:
    torch.manual_seed(0)
    frozen = ImplicitModel(5, 3, 7, f=Learnt).double()
    frozen.phi.requires_grad_(False)
    plain = ImplicitModel(5, 3, 7, f=NothingToLearn).double()
    U = torch.randn(4, 5, dtype=torch.float64)
    for model in (frozen, plain):
        Y = model(U)
        assert torch.allclose(Y, unrolled(model, U), atol=1e-5)
        Y.sum().backward()
        assert model.last_solution.adjoint is not None  # the implicit model's own


def test_half_precision() -> None:
    torch.manual_seed(0)
    model = ImplicitModel(5, 3, 7, f=Learnt).bfloat16()
    Y = model(torch.randn(4, 5).bfloat16())
    assert Y.dtype == torch.bfloat16
    assert model.last_solution.forward.all_converged
    Y.sum().backward()
    assert model.phi.weight.grad is not None


def test_what_cannot_be_is_refused() -> None:
    class Triangular(ImplicitFunctionTriu):
        phi = nn.PReLU()

    U = torch.randn(4, 5)
    with pytest.raises(ValueError, match="triangular"):
        ImplicitModel(5, 3, 7, f=Triangular)(U)
    with pytest.raises(ValueError, match="parameters of its own"):
        ImplicitModel(5, 3, 7, f=Learnt, kernel="numba").float()(U)


def test_results_of_another_shape_are_refused() -> None:
    class Summed(ImplicitFunctionInf):
        @staticmethod
        def phi(X: Tensor) -> Tensor:
            return X.sum(-1, keepdim=True)

    with pytest.raises(ValueError, match="entry by entry"):
        ImplicitModel(5, 3, 7, f=Summed)(torch.randn(4, 5))


@pytest.mark.parametrize("rank", [None, 2])
def test_a_phi_with_a_buffer_of_its_own(rank: int | None) -> None:
    buffer = torch.empty(4, 7)

    class Buffered(ImplicitFunctionInf):
        @staticmethod
        def phi(X: Tensor) -> Tensor:
            return torch.relu(X) if X.shape != buffer.shape else buffer.copy_(X).relu_()

        @staticmethod
        def dphi(X: Tensor) -> Tensor:
            return buffer.copy_(X > 0)

    torch.manual_seed(0)
    options = {} if rank is None else {"is_low_rank": True, "rank": rank}
    own, usual = ImplicitModel(5, 3, 7, f=Buffered, **options), ImplicitModel(5, 3, 7, **options)
    usual.load_state_dict(own.state_dict())
    U = torch.randn(4, 5)
    for one, other in zip(
        torch.autograd.grad(own(U).sum(), list(own.parameters())),
        torch.autograd.grad(usual(U).sum(), list(usual.parameters())),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-4)
