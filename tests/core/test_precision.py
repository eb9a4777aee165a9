"""float32, bfloat16 and autocast: solved in at least float32, and honest about its limits."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from idl_core import ImplicitFunctionTriu, ImplicitFunctionWarning, ImplicitModel
from idl_core.equilibrium import solution

P, Q, N, M = 8, 3, 20, 6
VARIANTS = {
    "plain": {},
    "bias": {"bias": True},
    "low_rank": {"low_rank": True, "rank": 4},
    "triangular": {"f": ImplicitFunctionTriu},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said once a process is to be heard in each of these tests."""
    monkeypatch.setattr(solution, "_unreachable", set())


def make(**settings) -> ImplicitModel:
    torch.manual_seed(0)
    return ImplicitModel(P, Q, N, **settings)


def test_a_residual_of_the_tolerance_s_own_size_is_nothing_to_warn_of() -> None:
    """States a little larger than float32 solves to the default: those of most trained models."""
    model = make()
    U = 100 * torch.randn(M, P)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X = model.equilibrium(U).detach()
        residual = float(model.last_solution.forward.residual.max())
        model(U).sum().backward()
    assert 3e-6 < residual <= 10 * 3e-6
    exact = copy.deepcopy(model).double().equilibrium(U.double()).detach()
    assert float((X - exact).abs().max()) <= residual / (1 - 0.99)  # ‖A‖∞ ≤ 0.99


@pytest.mark.parametrize("size", [1e3, 1e6])
@pytest.mark.parametrize("variant", ["plain", "bias", "low_rank"])
def test_a_tolerance_beyond_float32_is_said_once(variant: str, size: float) -> None:
    model = make(**VARIANTS[variant])
    U = size * torch.randn(M, P)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            Y = model(U)
            Y.sum().backward()
    assert [w.category for w in said] == [ImplicitFunctionWarning]
    assert "float32" in str(said[0].message)
    assert f"{3e-6:g}" in str(said[0].message)
    report = model.last_solution
    for solved in (report.forward, report.adjoint):
        assert solved.all_converged
        assert solved.converged.all()
        assert int(solved.iterations.max()) <= 60  # not 300
    exact = copy.deepcopy(model).double()(U.double())
    assert torch.allclose(
        Y.double(), exact, rtol=1e-4, atol=1e-5 * float(exact.detach().abs().max())
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor is float64 ever short of it
        copy.deepcopy(model).double()(U.double())


@pytest.mark.filterwarnings("ignore:tol=.*finer")
def test_small_samples_beside_large_ones_reach_the_tolerance() -> None:
    """What float32 resolves is each sample's own: one large input does not coarsen the others."""
    model = make(tol=1e-9)
    U = 1e-3 * torch.randn(M, P)
    U[0] *= 1e9
    model(U)
    report = model.last_solution.forward
    assert report.all_converged
    assert report.converged.all()
    assert (report.residual[1:] <= 1e-9).all()
    assert float(report.residual[0]) <= 1e-6 * float(report.value.abs().max())


@every_variant
@pytest.mark.parametrize("pure", [False, True], ids=["autocast", "pure"])
def test_bfloat16(variant: str, pure: bool) -> None:
    """Rounded inputs and weights, but no iteration that stalls at bfloat16's precision."""
    model = make(**VARIANTS[variant])
    U = torch.randn(M, P)
    exact = copy.deepcopy(model).double()
    truth = exact(U.double())
    truth.square().sum().backward()
    if pure:
        model, U = model.bfloat16(), U.bfloat16()
        Y = model(U)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            Y = model(U)
    assert Y.dtype == torch.bfloat16
    assert model.last_solution.forward.value.dtype == torch.float32
    assert (model.last_solution.forward.residual <= 3e-6).all()
    scale = float(truth.detach().abs().max())
    assert torch.allclose(Y.double(), truth, rtol=0, atol=0.03 * scale)
    Y.float().square().sum().backward()
    assert model.last_solution.adjoint.value.dtype == torch.float32
    for mine, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        assert mine.grad.dtype == mine.dtype
        error = torch.linalg.norm(mine.grad.double() - theirs.grad)
        assert error <= 0.05 * torch.linalg.norm(theirs.grad)


def test_pure_bfloat16_outside_of_the_ball() -> None:
    """A trained A sits on the ball: projecting it in bfloat16 may not leave it ill-posed."""
    torch.manual_seed(0)
    model = ImplicitModel(P, Q, 300)
    with torch.no_grad():
        model.A.mul_(10)
    model = model.bfloat16()
    assert float(model.effective_A().detach().double().abs().sum(1).max()) < 1
    model(torch.randn(M, P).bfloat16())
    assert model.last_solution.forward.all_converged


@every_variant
def test_x0_of_another_dtype(variant: str) -> None:
    model, U = make(**VARIANTS[variant]), torch.randn(M, P)
    expected = model(U)
    for dtype in (torch.bfloat16, torch.float64):
        assert torch.allclose(
            model(U, X0=torch.zeros(M, N, dtype=dtype)).float(), expected, atol=1e-5
        )
        assert model(U, X0=torch.zeros(M, N, dtype=dtype)).dtype == expected.dtype


@pytest.mark.parametrize("options", [{}, {"is_low_rank": True, "rank": 2}, {"activation": "tanh"}])
def test_backward_within_autocast(options: dict) -> None:
    """A solve and its adjoint are in one precision, wherever backward is called."""
    torch.manual_seed(0)
    model, U = ImplicitModel(6, 3, 20, kernel="torch", **options), torch.randn(9, 6)
    found = []
    for autocast in (False, True):
        model.zero_grad()
        loss = model(U).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 0.01
