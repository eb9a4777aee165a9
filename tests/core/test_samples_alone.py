"""A sample is solved as if it were alone: what else is in its batch changes nothing it gets."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from idl_core import Anderson, Broyden, Implicit, ImplicitFunctionWarning, Picard, fixed_point

from .solvers import every_solver

TOL = 1e-9
N = 6


def affine(rate: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> M x + shift for rows x (m, n), M contracting by rate (m, 1) in the max-norm."""
    torch.manual_seed(0)
    M = torch.rand(N, N, dtype=torch.float64)
    M = M / M.sum(1, keepdim=True)
    return lambda x: rate * (x @ M.T) + shift


def alone(f_of: Callable[[slice], Callable], m: int, solver: object) -> Tensor:
    rows = []
    for i in range(m):
        x0 = torch.zeros(1, N, dtype=torch.float64)
        rows.append(fixed_point(f_of(slice(i, i + 1)), x0, solver).value)
    return torch.cat(rows).detach()


@every_solver
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rates", [(0.3, 0.5), (0.9, 0.97)], ids=["fast", "slow"])
def test_beside_a_sample_that_is_not_finite(make: Callable, bad: float, rates: tuple) -> None:
    torch.manual_seed(1)
    rate = torch.tensor([[rates[0]], [0.5], [rates[1]], [0.0]], dtype=torch.float64)
    shift = torch.randn(4, N, dtype=torch.float64)
    shift[1, 2] = bad
    solver = make(tol=TOL, max_iter=2000)
    with pytest.warns(ImplicitFunctionWarning, match="1 of 4 samples") as said:
        solution = fixed_point(affine(rate, shift), torch.zeros(4, N, dtype=torch.float64), solver)
    assert len(said) == 1
    assert solution.converged.tolist() == [True, False, True, True]
    assert not solution.all_converged
    healthy = [0, 2, 3]
    expected = alone(lambda s: affine(rate[healthy][s], shift[healthy][s]), 3, solver)
    error = (solution.value.detach()[healthy] - expected).abs().amax(1)
    assert (error <= 2 * TOL / (1 - rate[healthy, 0])).all()
    assert (solution.residual[healthy] <= TOL).all()
    assert int(solution.iterations[1]) <= 4
    assert int(solution.iterations[3]) <= int(solution.iterations[2])


@every_solver
def test_beside_one_that_overflows_late(make: Callable) -> None:
    """Rows of a map that grows by 1e30 an iteration, which is finite for the first ten."""
    rate = torch.tensor([[0.6], [1e30]], dtype=torch.float64)
    f = affine(rate, torch.ones(2, N, dtype=torch.float64))
    with pytest.warns(ImplicitFunctionWarning), torch.no_grad():
        solution = fixed_point(f, torch.zeros(2, N, dtype=torch.float64), make(tol=TOL))
    assert bool(solution.converged[0])
    assert torch.allclose(solution.value[0], torch.full((N,), 2.5).double(), atol=1e-8)


@every_solver
def test_beside_one_that_never_converges(make: Callable) -> None:
    """A translation goes on for ever; the slow sample is accelerated all the same."""
    torch.manual_seed(0)
    M = torch.rand(2, 2, dtype=torch.float64)
    slow = 0.999 * M / M.sum(1, keepdim=True)
    maps = torch.stack((slow, torch.eye(2).double(), 0.1 * slow))

    def f(x: Tensor) -> Tensor:
        return torch.bmm(maps[: len(x)], x.unsqueeze(2)).squeeze(2) + 1

    x0 = torch.zeros(3, 2, dtype=torch.float64)
    solver = make(tol=TOL, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitFunctionWarning)
        by_itself = fixed_point(f, x0[:1], solver)
        solution = fixed_point(f, x0, solver)
    assert bool(solution.converged[0]) == bool(by_itself.converged[0])
    if solution.converged[0]:
        truth = torch.linalg.solve(torch.eye(2).double() - slow, torch.ones(2).double())
        assert torch.allclose(solution.value[0].detach(), truth, rtol=0, atol=TOL / 1e-3)
    assert bool(solution.converged[2])


@pytest.mark.parametrize("solver", [Anderson(tol=TOL), Picard(TOL, then=Anderson())])
def test_acceleration_is_given_up_sample_by_sample(solver: object) -> None:
    """One sample that acceleration cannot help does not take it from another."""
    torch.manual_seed(0)
    M = torch.rand(2, 2, dtype=torch.float64)
    slow = 0.999 * M / M.sum(1, keepdim=True)
    maps = torch.stack((slow, torch.eye(2).double()))
    with pytest.warns(ImplicitFunctionWarning, match="1 of 2"):
        solution = fixed_point(
            lambda x: torch.bmm(maps, x.unsqueeze(2)).squeeze(2) + 1,
            torch.zeros(2, 2, dtype=torch.float64),
            solver,
        )
    assert bool(solution.converged[0])  # Picard iteration would need 20,000 iterations


@every_solver
def test_what_has_settled_stays(make: Callable) -> None:
    """A fast sample beside a slow one keeps the value that it converged to, to the bit."""
    slow = 0.99

    def f(x: Tensor) -> Tensor:
        rate = torch.tensor([[0.2], [slow]], dtype=torch.float64)[: len(x)]
        return rate * torch.cos(x) + 1

    x0 = torch.zeros(2, 3, dtype=torch.float64)
    both = fixed_point(f, x0, make(tol=TOL, max_iter=4000))
    assert both.all_converged
    assert both.converged.all()
    assert int(both.iterations[0]) <= int(both.iterations[1])
    single = fixed_point(f, x0[:1], make(tol=TOL, max_iter=4000))
    assert torch.allclose(both.value[:1], single.value, rtol=0, atol=2 * TOL)


@every_solver
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e18])
def test_gradients_beside_others(make: Callable, bad: float) -> None:
    """A gradient that is not finite, or huge, leaves the input gradients of others as they are."""
    torch.manual_seed(2)
    rate = torch.full((3, 1), 0.8, dtype=torch.float64)
    shift = torch.randn(3, N, dtype=torch.float64)
    incoming = torch.randn(3, N, dtype=torch.float64)
    incoming[1] = bad

    def gradient(rows: list[int]) -> Tensor:
        b = shift[rows].requires_grad_()
        f = affine(rate[rows], b)
        x0 = torch.zeros(len(rows), N, dtype=torch.float64)
        value = fixed_point(
            lambda x: torch.tanh(f(x)), x0, make(tol=TOL), Implicit(make(tol=TOL))
        ).value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImplicitFunctionWarning)
            value.backward(incoming[rows])
        assert b.grad is not None
        return b.grad

    together, apart = gradient([0, 1, 2]), gradient([0, 2])
    assert torch.allclose(together[[0, 2]], apart, rtol=0, atol=20 * TOL)


@pytest.mark.filterwarnings("ignore:tol=.*finer")
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-17, 1e-8, 1.0, 1e8, 1e25, 1e30])
@pytest.mark.parametrize("solver", [Picard(), Picard(then=Anderson()), Anderson(), Broyden()])
def test_gradients_of_any_scale(solver: object, scale: float) -> None:
    """In float32, against the linear solve in float64: slow enough that it takes acceleration."""
    torch.manual_seed(0)
    M = torch.rand(8, 8)
    M = 0.95 * M / M.sum(1, keepdim=True)
    b = torch.randn(4, 8, requires_grad=True)
    incoming = torch.randn(4, 8)
    value = fixed_point(lambda x: x @ M.T + b, torch.zeros(4, 8), solver).value
    value.backward(scale * incoming)
    truth = torch.linalg.solve((torch.eye(8) - M).double().T, incoming.double().T).T
    found = b.grad.double() / scale
    # The smallest scale leaves few digits: what it multiplies is rounded to 1e-45.
    allowed = 1e-3 if scale > 1e-37 else 1e-2
    assert float((found - truth).abs().max() / truth.abs().max()) < allowed
