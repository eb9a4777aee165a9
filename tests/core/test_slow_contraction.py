"""Where Picard iteration is slow: fewer maps, the same equilibrium, the same gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from idl_core import ImplicitModel

P, Q, N, M = 5, 3, 40, 6


def slow_model(kappa: float, activation: str = "relu", **settings) -> ImplicitModel:
    """A is positive with row sums of kappa: nothing contracts faster than by kappa."""
    torch.manual_seed(0)
    model = ImplicitModel(
        P, Q, N, kappa=(1 + kappa) / 2, mitr=3000, grad_mitr=3000, activation=activation, **settings
    ).double()
    with torch.no_grad():
        A = torch.rand(N, N, dtype=torch.float64) + 0.05
        model.A.copy_(kappa * A / A.sum(1, keepdim=True))
        model.B.abs_()
        model.C.abs_()
    return model


def picard_maps(A: np.ndarray, Z: np.ndarray, tol: float) -> int:
    x, maps = np.maximum(Z, 0), 0
    while True:
        image = np.maximum(x @ A.T + Z, 0)
        maps += 1
        if np.abs(image - x).max() <= tol:
            return maps
        x = image


def exact(model: ImplicitModel, U: Tensor) -> np.ndarray:
    """All states are positive, so the equilibrium is linear."""
    A, B = model.A.detach().numpy(), model.B.detach().numpy()
    X = np.linalg.solve(np.eye(N) - A, B @ U.detach().numpy().T).T
    assert (X > 0).all()
    return X


@pytest.mark.parametrize("tol", [3e-6, 1e-10])
@pytest.mark.parametrize("kappa", [0.99, 0.999])
def test_five_times_fewer_maps_than_picard(kappa: float, tol: float) -> None:
    model = slow_model(kappa, tol=tol, grad_tol=tol)
    U = torch.rand(M, P, dtype=torch.float64)
    X = model.equilibrium(U)
    A, Z = model.A.detach(), (U @ model.B.T).detach()
    plain = picard_maps(A.numpy(), Z.numpy(), tol)
    assert plain > 300
    assert 5 * int(model.last_solution.forward.iterations.max()) <= plain
    state = X.detach()
    assert float((torch.relu(state @ A.T + Z) - state).abs().max()) <= tol
    assert np.abs(state.numpy() - exact(model, U)).max() <= tol / (1 - kappa)
    X.sum().backward()
    assert 5 * int(model.last_solution.adjoint.iterations.max()) <= plain
    assert model.last_solution.adjoint.all_converged


def test_float32_reaches_its_tolerance_as_well() -> None:
    model = slow_model(0.99, tol=1e-4, grad_tol=1e-5).float()
    U = torch.rand(M, P)
    Y = model(U)
    Y.sum().backward()
    report = model.last_solution
    assert report.forward.all_converged
    assert report.adjoint.all_converged
    assert int(report.forward.iterations.max()) <= 100
    truth = exact(model.double(), U.double())
    # tol/(1 - kappa), and float32's rounding amplified as much
    assert np.abs(report.forward.value.detach().numpy() - truth).max() <= 2e-2


@pytest.mark.parametrize("kappa", [0.99, 0.999])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradient_is_the_dense_linear_solve(activation: str, kappa: float) -> None:
    model = slow_model(kappa, activation, tol=1e-11, grad_tol=1e-11)
    U = torch.rand(M, P, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(M, Q, dtype=torch.float64)
    (model(U) * weight).sum().backward()

    A, B, C, D = (p.detach().numpy() for p in (model.A, model.B, model.C, model.D))
    phi, dphi = {
        "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
        "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    }[activation]
    expected = {
        name: np.zeros_like(value) for name, value in zip("ABCD", (A, B, C, D), strict=True)
    }
    for u, g, grad_u in zip(U.detach().numpy(), weight.numpy(), U.grad.numpy(), strict=True):
        x = np.zeros(N)
        for _ in range(200):  # Newton's method
            z = A @ x + B @ u
            x = x - np.linalg.solve(np.eye(N) - dphi(z)[:, None] * A, x - phi(z))
        slope = dphi(A @ x + B @ u)
        v = np.linalg.solve(np.eye(N) - slope[:, None] * A.T, slope * (C.T @ g))
        expected["A"] += np.outer(v, x)
        expected["B"] += np.outer(v, u)
        expected["C"] += np.outer(g, x)
        expected["D"] += np.outer(g, u)
        assert np.allclose(grad_u, B.T @ v + D.T @ g, rtol=1e-6, atol=1e-7)
    for name, value in expected.items():
        found = getattr(model, name).grad.numpy()
        assert np.allclose(found, value, rtol=1e-6, atol=1e-7 * np.abs(value).max()), name


@pytest.mark.parametrize("kappa", [0.9, 0.99])
def test_acceleration_that_does_not_help_is_given_up(kappa: float) -> None:
    """A cyclic shift has its eigenvalues all around a circle: no short history predicts it."""
    model = slow_model(kappa, tol=1e-9, grad_tol=1e-9)
    with torch.no_grad():
        model.A.copy_(kappa * torch.roll(torch.eye(N, dtype=torch.float64), 1, dims=1))
    U = torch.rand(M, P, dtype=torch.float64)
    Y = model(U)
    X = exact(model, U)
    expected = X @ model.C.detach().numpy().T + U.numpy() @ model.D.detach().numpy().T
    assert np.allclose(Y.detach().numpy(), expected, atol=1e-6)
    Y.sum().backward()
    report = model.last_solution
    A, Z = model.A.detach().numpy(), (U @ model.B.T).detach().numpy()
    bound = 2 * picard_maps(A, Z, 1e-9) + 60  # what the trial cost, and the prediction
    assert int(report.forward.iterations.max()) <= min(3000, bound)
    assert int(report.adjoint.iterations.max()) <= min(3000, bound)


def test_max_iter_holds_through_every_phase() -> None:
    """Plain, accelerated, plain again: together no more maps than were allowed."""
    shift = torch.roll(torch.eye(N, dtype=torch.float64), 1, dims=1)
    for mitr in (1, 3, 4, 5, 8, 9, 17, 30, 50):
        model = ImplicitModel(P, Q, N, kappa=0.9995, mitr=mitr, grad_mitr=mitr, tol=1e-13).double()
        with torch.no_grad():
            model.A.copy_(0.999 * shift)
            model.C.abs_()
        with pytest.warns(RuntimeWarning, match=f"{mitr} iterations"):
            Y = model(torch.rand(M, P, dtype=torch.float64))
        with pytest.warns(RuntimeWarning, match=f"{mitr} iterations"):
            Y.sum().backward()
        assert int(model.last_solution.forward.iterations.max()) == mitr
        assert int(model.last_solution.adjoint.iterations.max()) == mitr
