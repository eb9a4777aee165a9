"""One suite for every fixed-point solver, against NumPy and SciPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from idl_core import (
    Anderson,
    Broyden,
    Implicit,
    ImplicitFunctionWarning,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)

from .solvers import SOLVERS, every_solver, rows

SHAPES = [(), (1,), (7,), (4, 6), (1, 1), (2, 3, 2, 2)]


def contraction(shape: tuple[int, ...], nonlinear: bool) -> tuple[Callable, Tensor]:
    """A map of (m, n) samples that contracts by 0.9 in the max-norm, and its fixed point."""
    rng = np.random.default_rng(len(shape))
    m, n = rows(torch.empty(shape)).shape
    M = rng.normal(size=(n, n))
    M *= 0.9 / np.abs(M).sum(1, keepdims=True)
    c = rng.normal(size=(m, n))
    x = np.zeros((m, n))
    if nonlinear:
        for _ in range(2000):
            x = np.tanh(x @ M.T + c)
    else:
        x = np.linalg.solve(np.eye(n) - M, c.T).T
    slope, shift = torch.tensor(M), torch.tensor(c)

    def f(x: Tensor) -> Tensor:
        image = rows(x) @ slope.T + shift
        return (torch.tanh(image) if nonlinear else image).reshape(shape)

    return f, torch.tensor(x).reshape(shape)


def worst_residual(f: Callable, x: Tensor) -> Tensor:
    with torch.no_grad():
        return rows(f(x) - x).abs().amax(1)


@every_solver
@pytest.mark.parametrize("tol", [1e-3, 1e-11])
@pytest.mark.parametrize("nonlinear", [False, True], ids=["linear", "nonlinear"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_finds_the_fixed_point(make: Callable, shape: tuple, nonlinear: bool, tol: float) -> None:
    f, truth = contraction(shape, nonlinear)
    x0 = torch.zeros(shape, dtype=torch.float64)
    solution = fixed_point(f, x0, make(tol=tol, max_iter=1000))
    samples = rows(x0).shape[0]
    for figure in (solution.iterations, solution.residual, solution.converged):
        assert figure.shape == (samples,)
    assert solution.converged.all()
    assert (solution.residual <= tol).all()
    assert (solution.iterations >= 1).all()
    assert (solution.iterations <= 1000).all()
    value = solution.value.detach()
    assert value.shape == shape
    assert value.dtype == torch.float64
    assert (worst_residual(f, value) <= tol).all()
    assert float((value - truth).abs().max()) <= tol / (1 - 0.9)
    assert torch.count_nonzero(x0) == 0


@every_solver
@pytest.mark.parametrize("start", [0.0, 1.0, -50.0])
def test_x0_changes_the_way_and_not_the_answer(make: Callable, start: float) -> None:
    f, truth = contraction((3, 4), nonlinear=True)
    x0 = torch.full((4, 3), start, dtype=torch.float64).T  # not contiguous
    kept = x0.clone()
    value = fixed_point(f, x0, make(tol=1e-10, max_iter=1000)).value
    assert float((value.detach() - truth).abs().max()) <= 1e-9
    assert torch.equal(x0, kept)
    again = fixed_point(f, truth, make(tol=1e-10, max_iter=1000))
    assert int(again.iterations.max()) <= 4  # nothing is left to do


@every_solver
def test_maps_that_return_what_is_not_theirs_to_overwrite(make: Callable) -> None:
    """Their own argument, or a tensor of the caller: neither may serve as a buffer."""
    x0 = torch.ones(2, 3)
    assert torch.equal(fixed_point(lambda x: x, x0, make()).value, torch.ones(2, 3))
    constant = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    kept = constant.clone()
    assert torch.equal(fixed_point(lambda x: constant, x0, make()).value, kept)
    assert torch.equal(constant, kept)
    assert torch.equal(x0, torch.ones(2, 3))


@every_solver
def test_one_hard_sample_does_not_spoil_the_others(make: Callable) -> None:
    """Sample 2 is translated for ever; the others are solved and say so."""
    slope = torch.tensor([[0.1], [-0.5], [1.0], [0.3]], dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return slope * x + 1

    with pytest.warns(ImplicitFunctionWarning, match="1 of 4 samples") as said:
        solution = fixed_point(
            f, torch.zeros(4, 2, dtype=torch.float64), make(tol=1e-9, max_iter=60)
        )
    assert len(said) == 1
    assert "60" in str(said[0].message)  # the count
    assert f"{1.0:.3e}" in str(said[0].message)  # and the error
    assert solution.converged.tolist() == [True, True, False, True]
    assert not solution.all_converged
    truth = (1 / (1 - slope[[0, 1, 3]])).expand(3, 2)
    assert torch.allclose(solution.value.detach()[[0, 1, 3]], truth, atol=1e-8)
    assert (solution.residual[[0, 1, 3]] <= 1e-9).all()
    assert float(solution.residual[2]) == pytest.approx(1.0)


@every_solver
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_but_non_finite_samples_ends_the_solve(make: Callable, bad: float) -> None:
    calls = 0

    def f(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 0.9 * torch.cos(x) + bad

    with pytest.warns(ImplicitFunctionWarning, match="3 of 3") as said, torch.no_grad():
        solution = fixed_point(f, torch.zeros(3, 2), make(max_iter=1000))
    assert len(said) == 1
    assert calls <= 10
    assert not solution.converged.any()


@every_solver
def test_overflow_is_not_convergence(make: Callable) -> None:
    with pytest.warns(ImplicitFunctionWarning, match="2 of 2 samples"), torch.no_grad():
        solution = fixed_point(lambda x: 1e10 * x * x.abs() + 1, torch.ones(2, 3), make())
    assert not solution.all_converged
    assert not solution.converged.any()
    assert int(solution.iterations.max()) <= 50


def test_infinity_is_not_convergence() -> None:
    """Here the residual is infinite and so is the value that its rounding is measured by."""
    with pytest.warns(ImplicitFunctionWarning, match="2 of 2 samples"), torch.no_grad():
        solution = fixed_point(lambda x: 1e10 * x, torch.ones(2, 3), Picard())
    assert not solution.converged.any()


@every_solver
@pytest.mark.parametrize("max_iter", [1, 2, 3, 5, 21, 60])
def test_max_iter_bounds_the_calls_of_the_map(make: Callable, max_iter: int) -> None:
    calls = 0

    def f(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x + 1  # no fixed point

    with pytest.warns(ImplicitFunctionWarning), torch.no_grad():
        solution = fixed_point(f, torch.zeros(2, 3), make(max_iter=max_iter))
    assert calls == max_iter == int(solution.iterations.max())


@every_solver
def test_iterations_are_the_calls_of_the_map(make: Callable) -> None:
    f, _ = contraction((4, 6), nonlinear=True)
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return f(x)

    with torch.no_grad():
        solution = fixed_point(counted, torch.zeros(4, 6, dtype=torch.float64), make())
    assert calls == int(solution.iterations.max())


@every_solver
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,)], ids=str)
def test_nothing_to_solve(make: Callable, shape: tuple) -> None:
    weight = torch.ones((), requires_grad=True)
    solution = fixed_point(lambda x: 0.5 * torch.tanh(weight * x), torch.zeros(shape), make())
    assert solution.value.shape == shape
    assert solution.all_converged
    assert (
        solution.converged.shape == solution.residual.shape == (rows(torch.empty(shape)).shape[0],)
    )
    solution.value.sum().backward()
    assert float(weight.grad) == 0


@every_solver
def test_float32_residual_is_the_true_one(make: Callable) -> None:
    """From a bad start the first residuals are huge: none of their rounding may stay."""
    torch.manual_seed(0)
    for x0 in 1e4 * torch.randn(50, 1):
        slope, shift = 0.9 * torch.rand(1), 0.01 * torch.rand(1)
        with torch.no_grad():
            solution = fixed_point(lambda x, a=slope, b=shift: a * x + b, x0, make())
        residual = slope * solution.value + shift - solution.value
        assert solution.all_converged
        assert float(residual.abs()) <= 3.1e-6


@pytest.mark.parametrize("seed", range(3))
def test_broyden_solves_what_does_not_contract(seed: int) -> None:
    """Against SciPy's Newton-Krylov, on a map whose Jacobian has norm about 3 everywhere."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    c = rng.normal(size=5)
    truth = scipy.optimize.root(
        lambda x: 3 * Q @ x + 0.2 * np.sin(x) + c - x, np.zeros(5), tol=1e-13
    ).x
    turn, shift = torch.tensor(Q), torch.tensor(c)

    def f(x: Tensor) -> Tensor:
        return 3 * x @ turn.T + 0.2 * torch.sin(x) + shift

    x0 = torch.zeros(2, 5, dtype=torch.float64)
    solution = fixed_point(f, x0, Broyden(tol=1e-10))
    assert solution.all_converged
    assert torch.allclose(solution.value.detach(), torch.tensor(truth).expand(2, 5), atol=1e-8)
    with pytest.warns(ImplicitFunctionWarning):
        assert not fixed_point(f, x0, Picard(tol=1e-10)).all_converged


@pytest.mark.parametrize("make", [SOLVERS["anderson"], SOLVERS["picard then anderson"]])
def test_anderson_needs_fewer_maps_where_picard_is_slow(make: Callable) -> None:
    torch.manual_seed(0)
    M = torch.rand(20, 20, dtype=torch.float64)
    M *= 0.99 / M.sum(1, keepdim=True)
    c = torch.rand(6, 20, dtype=torch.float64)
    f, x0 = (lambda x: x @ M.T + c), torch.zeros(6, 20, dtype=torch.float64)
    plain = fixed_point(f, x0, Picard(tol=1e-8, max_iter=5000))
    fast = fixed_point(f, x0, make(tol=1e-8, max_iter=5000))
    assert 5 * int(fast.iterations.max()) <= int(plain.iterations.max())
    assert (worst_residual(f, fast.value) <= 1e-8).all()


def test_settings_out_of_range() -> None:
    for make in (Picard, Anderson, Broyden):
        for wrong in ({"tol": 0.0}, {"tol": -1.0}, {"tol": float("nan")}, {"max_iter": 0}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                make(**wrong)
    for make, name in ((Anderson, "window"), (Broyden, "memory")):
        with pytest.raises(ValueError, match=name):
            make(**{name: 0})
    for make in (Phantom, Unrolled):
        with pytest.raises(ValueError, match="steps"):
            make(steps=0)
    for damping in (0.0, 1.5):
        with pytest.raises(ValueError, match="damping"):
            Phantom(damping=damping)


def test_states_that_outgrow_their_start_are_solved_to_rounding_error() -> None:
    torch.manual_seed(0)
    M = torch.rand(60, 60)
    M, b = 0.9999 * M / M.sum(1, keepdim=True), torch.rand(4, 60)
    exact = torch.linalg.solve(torch.eye(60).double() - M.double(), b.double().T).T
    for solver in (Anderson(), Picard(then=Anderson(window=3)), Broyden()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "tol=3e-06 is finer")
            solution = fixed_point(lambda x: (x @ M.T + b).relu(), torch.zeros(4, 60), solver)
        assert solution.all_converged
        assert solution.converged.all()
        assert int(solution.iterations.max()) < 60
        assert float((solution.value - exact).abs().max() / exact.max()) < 1e-2


@pytest.mark.parametrize("make", [Picard, Anderson, Broyden])
@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(2)])
def test_autocast_within_the_map(make: Callable, adjoint: object) -> None:
    """Only the map is in a lower precision: the solution is as near as that allows."""
    torch.manual_seed(0)
    W = (0.35 * torch.randn(6, 6)).requires_grad_()
    exact = fixed_point(lambda x: torch.tanh(x @ W.double() + 1), torch.zeros(2, 6).double())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autocast("cpu", torch.bfloat16):
            solution = fixed_point(
                lambda x: torch.tanh(x @ W + 1), torch.zeros(2, 6), make(), adjoint
            )
        solution.value.sum().backward()
    assert solution.value.dtype == torch.float32
    assert W.grad is not None
    assert W.grad.isfinite().all()
    assert float((solution.value - exact.value).detach().abs().max()) < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    W = (0.35 * torch.randn(6, 6)).to(dtype).requires_grad_()
    for solver in (Picard(), Picard(then=Anderson()), Anderson(), Broyden()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = fixed_point(
                lambda x: torch.tanh(x @ W + 1), torch.zeros(2, 6, dtype=dtype), solver
            ).value
            value.sum().backward()
        assert value.dtype == dtype
