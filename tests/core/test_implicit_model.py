"""ImplicitModel: its answer, its interface, and what it refuses."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from idl import (
    ImplicitFunctionInf,
    ImplicitFunctionTriu,
    ImplicitFunctionWarning,
    ImplicitModel,
)

from .small_models import VARIANTS, M, N, P, Q, make

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def numbers(t: Tensor) -> np.ndarray:
    return t.detach().double().numpy()


def matrix_A(model: ImplicitModel) -> np.ndarray:
    """A of a model within its ball, from its parameters."""
    if model.is_low_rank:
        return numbers(model.L) @ numbers(model.R).T
    return (
        np.triu(numbers(model.A), 1)
        if isinstance(model.f, ImplicitFunctionTriu)
        else numbers(model.A)
    )


def by_loop(model: ImplicitModel, U: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """X and Ŷ of the two equations, sample by sample in float64."""
    A, B, C = matrix_A(model), numbers(model.B), numbers(model.C)
    states, outputs = [], []
    for u in numbers(U):
        u = np.append(u, 1.0) if model.bias else u
        x = np.zeros(len(A))
        for _ in range(3000):
            x = np.maximum(A @ x + B @ u, 0)
        states.append(x)
        outputs.append(C @ x + (0 if model.D is None else numbers(model.D) @ u))
    return np.array(states), np.array(outputs)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solves_both_equations(variant: str, dtype: torch.dtype) -> None:
    model = make(**VARIANTS[variant]).to(dtype)
    U = 3 * torch.randn(M, P, dtype=dtype)
    X, Y = by_loop(model, U)
    assert model(U).shape == (M, Q)
    assert model(U).dtype == dtype
    assert np.allclose(numbers(model(U)), Y, atol=1e-5)
    assert np.allclose(numbers(model.equilibrium(U)), X, atol=1e-5)
    assert np.allclose(numbers(model.effective_A()), matrix_A(model), atol=1e-6)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 70])
def test_triangular_is_back_substitution_whatever_the_norm(n: int) -> None:
    torch.manual_seed(n)
    model = ImplicitModel(P, Q, n, f=ImplicitFunctionTriu, activation="tanh").double()
    with torch.no_grad():
        model.A.copy_(torch.randn(n, n))  # below the diagonal there is something to ignore
    U = torch.randn(M, P, dtype=torch.float64)
    A, Z = numbers(model.A), numbers(U) @ numbers(model.B).T
    X = np.zeros((M, n))
    for s in range(M):
        for i in reversed(range(n)):
            X[s, i] = np.tanh(Z[s, i] + sum(A[i, j] * X[s, j] for j in range(i + 1, n)))
    assert np.allclose(numbers(model.equilibrium(U)), X, atol=1e-12)
    assert np.allclose(numbers(model.effective_A()), np.triu(A, 1))


@pytest.mark.filterwarnings("ignore:tol=.*finer")
def test_triangular_of_a_large_norm_is_no_failure() -> None:
    """A direct solution has converged: its rounding error is no news (warnings are errors here)."""
    torch.manual_seed(0)
    model = ImplicitModel(20, 2, 500, f=ImplicitFunctionTriu)
    with torch.no_grad():
        model.A.copy_(5 * torch.randn(500, 500) / 500**0.5)
    exact, U = copy.deepcopy(model).double(), 500 * torch.randn(16, 20)
    model(U).sum().backward()
    assert torch.allclose(model(U).double(), exact(U.double()), rtol=1e-2, atol=1.0)


@every_variant
def test_inputs_of_any_shape_are_flattened(variant: str) -> None:
    model = make(**VARIANTS[variant])
    U = torch.randn(M, P)
    expected = model(U)
    assert torch.equal(model(U.reshape(M, 1, 2, 3)), expected)
    assert torch.equal(model(U.reshape(M, 2, 3)), expected)
    strided = torch.empty(P, 2 * M)[:, ::2].copy_(U.T).T
    assert not strided.is_contiguous()
    assert torch.allclose(model(strided), expected, atol=1e-6)
    expanded = U[:1].expand(M, P)
    assert torch.allclose(model(expanded), expected[:1].expand(M, Q), atol=1e-5)


@every_variant
@pytest.mark.parametrize("m", [0, 1])
def test_empty_and_single_batches(variant: str, m: int) -> None:
    model = make(**VARIANTS[variant])
    U = torch.randn(m, 2, 3, requires_grad=True)
    Y = model(U)
    assert Y.shape == (m, Q)
    assert model.last_solution.forward.converged.shape == (m,)
    Y.sum().backward()
    assert U.grad.shape == U.shape
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()
        assert m or torch.count_nonzero(parameter.grad) == 0


@pytest.mark.parametrize("variant", ["plain", "bias", "low_rank"])
def test_a_warm_start_saves_maps_and_changes_nothing(variant: str) -> None:
    model = make(tol=1e-12, **VARIANTS[variant]).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    U = torch.randn(M, P, dtype=torch.float64)
    X = model.equilibrium(U).detach()
    cold = int(model.last_solution.forward.iterations.max())
    kept = X.clone()
    warm = model(U, X0=X)
    assert int(model.last_solution.forward.iterations.max()) <= 5 < cold
    assert torch.equal(X, kept)
    assert torch.allclose(warm, model(U), atol=1e-10)
    assert torch.allclose(model(U, X0=torch.randn(M, N, dtype=torch.float64)), warm, atol=1e-10)
    assert torch.allclose(model(U, X0=X.T.contiguous().T), warm, atol=1e-10)


def test_settings_belong_to_the_instance() -> None:
    defaults = {name: getattr(ImplicitFunctionInf, name) for name in ("mitr", "tol", "kappa")}
    assert defaults == {"mitr": 300, "tol": 3e-6, "kappa": 0.99}
    coarse = make(tol=1e-1, grad_tol=1e-1, mitr=7, grad_mitr=8, kappa=0.5)
    fine = make(tol=1e-10).double()
    U = torch.randn(M, P)
    coarse(U).sum().backward()
    fine(U.double()).sum().backward()
    again = make()
    again(U)
    for model, tol, kappa in ((coarse, 1e-1, 0.5), (fine, 1e-10, 0.99), (again, 3e-6, 0.99)):
        assert (model.f.tol, model.f.kappa) == (tol, kappa)
        assert model.last_solution.forward.tol == tol
        assert float(model.effective_A().detach().abs().sum(1).max()) <= kappa + 1e-6
    assert (
        coarse.last_solution.forward.iterations.max() < fine.last_solution.forward.iterations.max()
    )
    assert {name: getattr(ImplicitFunctionInf, name) for name in defaults} == defaults


def test_the_tutorials_training_loop_lowers_the_loss() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(5, 64), torch.randn(5, 10)
    model = ImplicitModel(input_dim=64, output_dim=10, hidden_dim=128)
    criterion, optimizer = nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]  # the tutorial: 1.59 -> 0.03
    model.eval()
    with torch.no_grad():
        assert model(torch.randn(1, 64)).shape == (1, 10)


def test_as_a_layer_of_a_larger_model() -> None:
    torch.manual_seed(0)
    layer = ImplicitModel(input_dim=16, output_dim=4, hidden_dim=8)
    model = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), layer, nn.Linear(4, 2))
    model(torch.randn(5, 7)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_low_rank_under_both_names() -> None:
    U = torch.randn(M, P)
    one, other = make(is_low_rank=True, rank=3), make(low_rank=True, rank=3)
    assert torch.equal(one(U), other(U))
    assert one.L.shape == one.R.shape == (N, 3)
    assert set(one.state_dict()) == {"L", "R", "B", "C", "D"}


@pytest.mark.parametrize("size", [1.0, 20.0], ids=["inside", "outside"])
@pytest.mark.parametrize("projection", ["ball", "row", "global"])
def test_low_rank_is_the_full_model_of_its_product(projection: str, size: float) -> None:
    low = make(low_rank=True, rank=3, projection=projection, tol=1e-12, grad_tol=1e-12).double()
    with torch.no_grad():
        low.L.mul_(size), low.R.mul_(size)
    full = make(projection=projection, tol=1e-12, grad_tol=1e-12).double()
    product = low.effective_A().detach()
    assert float(product.abs().sum(1).max()) <= 0.99 + 1e-12
    full.load_state_dict({"A": product, **{k: low.state_dict()[k] for k in "BCD"}})
    U = torch.randn(M, P, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(M, Q, dtype=torch.float64)
    results = []
    for model in (low, full):
        Y = model(U)
        results.append(
            [Y, *torch.autograd.grad((Y * weight).sum(), [U, model.B, model.C, model.D])]
        )
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)


@every_variant
def test_state_dict(variant: str) -> None:
    model = make(**VARIANTS[variant])
    width = P + (variant == "bias")
    shapes = {"A": (N, N), "B": (N, width), "C": (Q, N), "D": (Q, width)}
    if variant == "no_D":
        del shapes["D"]
    if variant == "low_rank":
        del shapes["A"]
        shapes |= {"L": (N, 2), "R": (N, 2)}
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == shapes
    torch.manual_seed(1)
    other = ImplicitModel(P, Q, N, **VARIANTS[variant])
    U = torch.randn(M, P)
    assert not torch.equal(other(U), model(U))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(U), model(U))


@every_variant
@pytest.mark.parametrize("way", ["forward", "equilibrium"])
@pytest.mark.parametrize("backward", [True, False])
def test_nothing_outlives_its_last_reference(variant: str, way: str, backward: bool) -> None:
    """A cycle through the last solution would keep whole training steps until a collection."""
    model = make(**VARIANTS[variant])
    gc.collect()
    gc.disable()
    try:
        out = model(torch.randn(M, P)) if way == "forward" else model.equilibrium(torch.randn(M, P))
        if backward:
            out.sum().backward()
        watched = [weakref.ref(model.last_solution), weakref.ref(model.last_solution.forward)]
        del out
        model(torch.randn(1, P))
        assert [ref() for ref in watched] == [None, None]
    finally:
        gc.enable()


@every_variant
def test_last_solution(variant: str) -> None:
    model = make(**VARIANTS[variant])
    assert model.last_solution.forward is None
    Y = model(torch.randn(M, P))
    first = model.last_solution
    assert first.adjoint is None
    Y.sum().backward()
    for solution in (first.forward, first.adjoint):
        assert solution.iterations.shape == solution.residual.shape == (M,)
        assert solution.converged.all()
        assert solution.all_converged
        assert (solution.iterations >= 1).all()
        assert not solution.value.requires_grad
    assert (first.forward.residual <= 3e-6).all()
    model(torch.randn(2, P))
    assert model.last_solution is not first
    assert model.last_solution.adjoint is None


def test_not_converging_warns_once_forward_and_once_backward() -> None:
    model = make(mitr=2, grad_mitr=2, kappa=0.999)
    with torch.no_grad():
        model.A.uniform_(1, 2)
        model.C.fill_(1.0)  # a gradient that reaches every state
    with pytest.warns(ImplicitFunctionWarning, match="2 iterations") as said:
        Y = model(torch.rand(M, P) * 10)
    assert len(said) == 1
    with pytest.warns(ImplicitFunctionWarning, match="adjoint") as said:
        Y.sum().backward()
    assert len(said) == 1
    assert not model.last_solution.forward.all_converged


@every_variant
def test_without_gradients(variant: str) -> None:
    model, U = make(**VARIANTS[variant]), torch.randn(M, P)
    expected = model(U)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found = model(U)
        assert not found.requires_grad
        assert torch.equal(found, expected)
    for p in model.parameters():
        p.requires_grad_(False)
    assert not model(U).requires_grad
    inputs = U.clone().requires_grad_()
    model(inputs).sum().backward()  # frozen weights, as in adversarial examples
    assert torch.count_nonzero(inputs.grad) > 0


@every_variant
def test_functional_call(variant: str) -> None:
    model, U = make(**VARIANTS[variant]), torch.randn(M, P)
    halved = {name: 0.5 * p.detach() for name, p in model.named_parameters()}
    found = torch.func.functional_call(model, halved, (U,))
    twin = copy.deepcopy(model)
    twin.load_state_dict(halved)
    assert torch.equal(found, twin(U))


def test_two_uses_in_one_graph() -> None:
    """The gradient of shared weights is the sum over uses; the reports do not mix."""
    model, U = make(), torch.randn(2, M, P)
    separate = [torch.autograd.grad(model(u).square().sum(), model.A)[0] for u in U]
    both = model(U[0]).square().sum() + model(U[1]).square().sum()
    (found,) = torch.autograd.grad(both, model.A)
    assert torch.allclose(found, separate[0] + separate[1], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"input_dim": 0}, "input_dim"),
        ({"output_dim": -1}, "output_dim"),
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"kappa": 1.0}, "kappa"),
        ({"kappa": -0.1}, "kappa"),
        ({"kappa": float("nan")}, "kappa"),
        ({"is_low_rank": True}, "rank"),
        ({"low_rank": True, "rank": 0}, "rank"),
        ({"low_rank": True, "rank": N + 1}, "rank"),
        ({"activation": "rleu"}, "activation"),
        ({"projection": "bal"}, "projection"),
        ({"f": ImplicitFunctionTriu, "low_rank": True, "rank": 2}, "triangular"),
        ({"tol": 0.0}, "tol"),
        ({"grad_tol": -1.0}, "tol"),
        ({"mitr": 0}, "mitr|max_iter"),
        ({"grad_mitr": 0}, "mitr|max_iter"),
    ],
    ids=str,
)
def test_settings_out_of_range(settings: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ImplicitModel(**{"input_dim": P, "output_dim": Q, "hidden_dim": N} | settings)


def test_inputs_of_the_wrong_shape() -> None:
    model = make()
    for wrong in (torch.randn(M, P + 1), torch.randn(M, P, 2)):
        with pytest.raises(ValueError, match=f"{P}"):
            model(wrong)
    for wrong in (torch.randn(M, N + 1), torch.randn(M + 1, N), torch.randn(N)):
        with pytest.raises(ValueError, match="X0"):
            model(torch.randn(M, P), X0=wrong)


def test_kappa_zero_is_a_layer_without_feedback() -> None:
    model, U = make(kappa=0.0), torch.randn(M, P)
    with torch.no_grad():
        expected = torch.relu(U @ model.B.T) @ model.C.T + U @ model.D.T
    assert torch.allclose(model(U), expected, atol=1e-6)


def test_settings_that_are_changed_act() -> None:
    torch.manual_seed(0)
    model, U = ImplicitModel(6, 3, 20).double(), torch.randn(9, 6, dtype=torch.float64)
    f = model.f
    f.tol, f.mitr, f.grad_tol, f.grad_mitr = 1e-12, 1000, 1e-11, 900
    model(U).sum().backward()
    forward, adjoint = model.last_solution.forward, model.last_solution.adjoint
    assert forward is not None
    assert adjoint is not None
    assert float(forward.residual.max()) <= forward.tol == 1e-12
    assert (f.solver.max_iter, f.adjoint_solver.max_iter) == (1000, 900)
    assert f.adjoint_solver.tol == 1e-11
    with pytest.raises(ValueError, match="tol must be positive"):
        f.tol = 0.0
    assert f.tol == 1e-12
    assert forward.with_value(U).residual is not None
