"""Gradients of a fixed point by every adjoint, and what the graph holds."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from idl_core import (
    Implicit,
    ImplicitFunctionWarning,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)

from .solvers import SOLVERS, every_solver, rows


@every_solver
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 1, 2)], ids=str)
def test_gradcheck(make: Callable, shape: tuple) -> None:
    torch.manual_seed(0)
    n = rows(torch.empty(shape)).shape[1]
    weight = (torch.randn(n, n, dtype=torch.float64) / (2 * n)).requires_grad_()
    shift = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x0 = torch.zeros(shape, dtype=torch.float64)

    def value(weight: Tensor, shift: Tensor) -> Tensor:
        def f(x: Tensor) -> Tensor:
            return torch.tanh((rows(x) @ weight.T).reshape(shape) + shift)

        return fixed_point(f, x0, make(tol=1e-13, max_iter=2000)).value

    assert torch.autograd.gradcheck(value, (weight, shift))


@pytest.mark.parametrize("backward", SOLVERS.values(), ids=SOLVERS)
def test_implicit_gradient_is_the_dense_linear_solve(backward: Callable) -> None:
    torch.manual_seed(0)
    M = torch.randn(5, 5, dtype=torch.float64)
    M *= 0.9 / M.abs().sum(1, keepdim=True)
    c = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    adjoint = Implicit(backward(tol=1e-12, max_iter=2000))
    x = fixed_point(
        lambda x: torch.tanh(x @ M.T + c), torch.zeros(3, 5).double(), Picard(1e-13, 2000), adjoint
    ).value
    grad = torch.randn(3, 5, dtype=torch.float64)
    x.backward(grad)
    for i in range(3):  # x = tanh(Mx + c): dx = (I - S M)^{-1} S dc
        S = torch.diag(1 - x.detach()[i] ** 2)
        expected = S @ torch.linalg.solve((torch.eye(5, dtype=torch.float64) - S @ M).T, grad[i])
        assert torch.allclose(c.grad[i], expected, atol=1e-9)


def test_the_adjoint_says_when_it_did_not_converge() -> None:
    c = torch.ones(2, 3, requires_grad=True)
    adjoint = Implicit(Picard(max_iter=2))
    solution = fixed_point(lambda x: 0.9 * torch.sin(x) + c, torch.zeros(2, 3), adjoint=adjoint)
    with pytest.warns(ImplicitFunctionWarning, match="adjoint") as said:
        solution.value.sum().backward()
    assert len(said) == 1


def test_the_adjoint_tolerance_is_relative_to_the_gradient() -> None:
    c = torch.linspace(0, 1, 6).reshape(2, 3).requires_grad_()
    x = fixed_point(lambda x: 0.9 * torch.sin(x) + c, torch.zeros(2, 3)).value
    (full,) = torch.autograd.grad(x.sum(), c, retain_graph=True)
    (tiny,) = torch.autograd.grad(x.sum() * 2.0**-20, c)
    assert torch.equal(full * 2.0**-20, tiny)


def test_a_map_that_does_not_depend_on_x_has_a_gradient() -> None:
    c = torch.tensor([[1.0, 2.0]], requires_grad=True)
    fixed_point(lambda x: 2 * c, torch.zeros(1, 2)).value.sum().backward()
    assert torch.equal(c.grad, torch.full((1, 2), 2.0))


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(2)], ids=str)
def test_no_gradient_for_x0(adjoint: object) -> None:
    x0 = torch.zeros(2, 3, requires_grad=True)
    c = torch.ones(2, 3, requires_grad=True)
    fixed_point(lambda x: 0.5 * torch.sin(x) + c, x0, adjoint=adjoint).value.sum().backward()
    assert x0.grad is None
    assert c.grad is not None


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(2), Unrolled(3)], ids=str)
def test_no_grad_builds_no_graph(adjoint: object) -> None:
    c = torch.ones(2, 3, requires_grad=True)
    with torch.no_grad():
        solution = fixed_point(lambda x: 0.5 * torch.sin(x) + c, c, adjoint=adjoint)
    assert not solution.value.requires_grad


def problem() -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Tensor, Tensor]:
    torch.manual_seed(0)
    M = (torch.randn(4, 4, dtype=torch.float64) / 8).requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    return lambda x, M, c: torch.tanh(x @ M.T + c), M, c


@pytest.mark.parametrize(("steps", "damping"), [(1, 1.0), (3, 1.0), (4, 0.5)])
def test_phantom_is_some_steps_at_the_fixed_point(steps: int, damping: float) -> None:
    """One undamped step is Jacobian-free backpropagation: G ∂f/∂θ at the fixed point."""
    f, M, c = problem()
    x0, grad = torch.zeros(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    found = fixed_point(lambda x: f(x, M, c), x0, Picard(1e-13), Phantom(steps, damping))
    gradients = torch.autograd.grad(found.value, (M, c), grad)
    x = x0
    for _ in range(500):
        x = f(x, M, c).detach()
    for _ in range(steps):
        x = (1 - damping) * x + damping * f(x, M, c)
    expected = torch.autograd.grad(x, (M, c), grad)
    assert torch.allclose(found.value, x, atol=1e-12)
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5])
def test_unrolled_is_the_loop(steps: int) -> None:
    f, M, c = problem()
    x0 = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, 4, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # stopping short was asked for
        solution = fixed_point(lambda x: f(x, M, c), x0, adjoint=Unrolled(steps))
    x: Tensor = x0
    for _ in range(steps):
        before, x = x, f(x, M, c)
    assert torch.equal(solution.value, x)
    assert (solution.iterations == steps).all()
    assert torch.allclose(solution.residual, (x - before).detach().abs().amax(1))
    assert not solution.converged.any()
    found = torch.autograd.grad(solution.value, (M, c, x0), grad)
    for one, other in zip(found, torch.autograd.grad(x, (M, c, x0), grad), strict=True):
        assert torch.allclose(one, other, atol=1e-14)


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(2), Unrolled(3)], ids=str)
@pytest.mark.parametrize("backward", [True, False])
def test_nothing_outlives_its_last_reference(adjoint: object, backward: bool) -> None:
    """Cycles would keep the activations of whole training steps until the collector runs."""
    gc.collect()
    gc.disable()
    try:
        c = torch.ones(2, 3, requires_grad=True)
        drive = 2 * c  # an intermediate that only the graph holds
        solution = fixed_point(
            lambda x, drive=drive: 0.5 * torch.sin(x) + drive, torch.zeros(2, 3), adjoint=adjoint
        )
        watched = [weakref.ref(drive), weakref.ref(solution), weakref.ref(solution.value)]
        if backward:
            solution.value.sum().backward()
        del drive, solution
        assert [ref() for ref in watched] == [None, None, None]
    finally:
        gc.enable()


def test_nothing_that_requires_a_gradient_gives_none() -> None:
    scale = torch.tensor(0.5)
    f = lambda x: torch.tanh(x * scale + 1)  # noqa: E731
    assert not fixed_point(f, torch.zeros(2, 3)).value.requires_grad
    assert not fixed_point(lambda x: torch.ones(2, 3), torch.zeros(2, 3)).value.requires_grad
    scale.requires_grad_()
    assert fixed_point(f, torch.zeros(2, 3)).value.requires_grad
