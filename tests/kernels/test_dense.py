"""The dense equilibrium and its adjoint, on chip and streamed, against float64."""

from __future__ import annotations

import warnings

import pytest
import torch
from equilibria import contraction, gradients, residual, solution
from torch import Tensor

from idl_core import Broyden, ImplicitFunctionWarning, Picard
from idl_core.activations import ACTIVATIONS
from idl_core.equilibrium import flush_warnings
from idl_core.equilibrium.solution import LastSolution
from idl_core.kernels import Affine, Method, equilibrium
from idl_core.kernels.triton import ops, sizes
from idl_core.kernels.triton.support import KNOWN

TOL = 3e-6


def solve(
    A: Tensor,
    Z: Tensor,
    activation: str = "relu",
    X0: Tensor | None = None,
    tol: float = TOL,
    max_iter: int = 300,
) -> tuple[Tensor, LastSolution]:
    solver, report = Picard(tol, max_iter), LastSolution()
    form = ACTIVATIONS[activation]
    method = Method(form, solver, solver, report, "triton")
    return equilibrium(Affine(A), Z, X0, method), report


def tell(report: LastSolution) -> None:
    """Say what the forward solve has to say, on a GPU too."""
    report.forward.warn_unless_converged("it")
    flush_warnings()


def check(A: Tensor, Z: Tensor, activation: str, kappa: float, max_iter: int = 300) -> LastSolution:
    """Forward and adjoint are within what the tolerance promises of the truth in float64."""
    A, Z = A.clone().requires_grad_(), Z.clone().requires_grad_()
    X, report = solve(A, Z, activation, max_iter=max_iter)
    exact = solution(A, Z, activation)
    rounding = 1e-6 * max(1.0, float(exact.abs().max()))
    assert float((X.detach().cpu() - exact).abs().max()) <= (TOL + rounding) / (1 - kappa)
    forward = report.forward
    assert forward is not None
    assert forward.all_converged
    assert float((residual(X, A, Z, activation) - forward.residual.cpu()).max()) <= TOL + rounding
    G = torch.randn(X.shape, generator=torch.Generator().manual_seed(9)).to(X)
    (X * G).sum().backward()
    assert report.adjoint is not None
    assert report.adjoint.all_converged
    for found, expected in zip((A.grad, Z.grad), gradients(A, Z, G, activation), strict=True):
        assert found is not None
        error = float((found.cpu() - expected).abs().max())
        assert error <= (TOL + 2e-6) * max(1.0, float(expected.abs().max())) / (1 - kappa)
    return report


@pytest.mark.parametrize(("m", "n"), [(1, 1), (8, 16), (9, 20), (2, 33), (5, 128), (3, 129)])
def test_sizes(m: int, n: int, device: str) -> None:
    A = contraction(n, 0.8, "random").to(device)
    Z = torch.randn(m, n, generator=torch.Generator().manual_seed(1)).to(device)
    check(A, Z, "tanh", 0.8)


@pytest.mark.parametrize(("activation", "n"), [*((name, 12) for name in KNOWN), ("silu", 130)])
def test_activations(activation: str, n: int, device: str) -> None:
    A = contraction(n, 0.8, "trained").to(device)
    Z = 2 * torch.randn(4, n, generator=torch.Generator().manual_seed(2)).to(device)
    check(A, Z, activation, 0.8 * 1.1)


@pytest.mark.parametrize(("n", "kappa"), [(30, 0.99), (30, 0.999), (130, 0.999)])
def test_slow_contractions_are_accelerated(n: int, kappa: float, device: str) -> None:
    """Plain iteration takes over 1,000 and over 10,000 applications of the map."""
    A = contraction(n, kappa, "slow").to(device)
    Z = torch.rand(3, n, generator=torch.Generator().manual_seed(3)).sub(0.7).to(device)
    report = check(A, Z, "relu", kappa)
    assert int(report.forward.iterations.max()) <= 100
    assert int(report.adjoint.iterations.max()) <= 100


def test_a_sample_is_solved_as_if_it_were_alone(device: str) -> None:
    """Neither its neighbours in a tile nor the padding change a bit of it."""
    A = contraction(20, 0.9, "random").to(device)
    Z = torch.randn(11, 20, generator=torch.Generator().manual_seed(4)).to(device)
    X, together = solve(A, Z)
    for i in (0, 7, 10):
        alone, report = solve(A, Z[i : i + 1])
        assert torch.equal(alone[0], X[i])
        assert int(report.forward.iterations) == int(together.forward.iterations[i])


@pytest.mark.parametrize("n", [20, 130])
def test_without_an_equilibrium_it_stops_and_says_so(n: int, device: str) -> None:
    A = 2 * torch.roll(torch.eye(n), 1, 0).to(device)  # x = 2 P x + 1 > 0 has no solution
    Z = torch.ones(3, n, device=device)
    X, report = solve(A, Z, max_iter=7)
    with pytest.warns(ImplicitFunctionWarning, match="3 of 3 samples.*after 7 iterations"):
        tell(report)
    assert not report.forward.converged.any()
    assert report.forward.iterations.tolist() == [7, 7, 7]
    assert X.shape == (3, n)


@pytest.mark.parametrize("n", [20, 130])
def test_what_is_not_finite_is_given_up_alone(n: int, device: str) -> None:
    A = contraction(n, 0.8, "random").to(device)
    Z = torch.randn(5, n, generator=torch.Generator().manual_seed(5)).to(device)
    clean, _ = solve(A, Z)
    Z[1, 3], Z[3, 0] = float("nan"), float("inf")
    X, report = solve(A, Z)
    assert report.forward.converged.tolist() == [True, False, True, False, True]
    assert not X[1].isfinite().all()
    assert not X[3].isfinite().all()
    assert torch.equal(X[[0, 2, 4]], clean[[0, 2, 4]])
    assert int(report.forward.iterations[[1, 3]].max()) <= 3
    nowhere, report = solve(torch.full_like(A, float("nan")), Z)
    assert not report.forward.converged.any()
    assert not nowhere.isfinite().any()


@pytest.mark.parametrize("n", [20, 129])
def test_a_gradient_is_solved_as_if_it_were_alone(n: int, device: str) -> None:
    """Huge, small, none, too small for float32, infinite: no other sample of the tile is touched,
    and what has an adjoint has it in as many iterations."""
    A = contraction(n, 0.9, "slow").to(device).requires_grad_()
    Z = torch.rand(1, n, generator=torch.Generator().manual_seed(5)).to(device).repeat(8, 1)
    size = torch.tensor([1.0, 1e20, 1e-25, 0.0, 1e-41, float("inf"), float("nan"), 1.0])[:, None]
    grads, reports = [], []
    for sizes_of in (torch.ones(8, 1), size):
        leaf = Z.clone().requires_grad_()
        X, report = solve(A, leaf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImplicitFunctionWarning)
            X.backward(torch.ones_like(X) * sizes_of.to(device))
            flush_warnings()
        grads.append(leaf.grad.cpu())
        reports.append(report.adjoint)
    clean, found = grads
    expected = gradients(A, Z, torch.ones(8, n), "relu")[1]
    assert float((clean - expected).abs().max() / expected.abs().max()) <= 1e-4
    assert torch.equal(found[[0, 7]], clean[[0, 7]])
    for i in (1, 2):
        torch.testing.assert_close(found[i] / size[i], clean[i], rtol=1e-4, atol=0)
    assert float(found[3:5].abs().max()) <= 1e-39
    assert not found[5:7].isfinite().all(1).any()
    assert reports[1].converged.tolist() == [True] * 5 + [False] * 2 + [True]
    assert int(reports[1].iterations.max()) <= int(reports[0].iterations.max()) + 1 <= 10
    assert not A.grad.isfinite().all()


def test_what_a_smaller_card_cannot_hold_is_streamed(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed, launch = [], ops._launch_streamed
    monkeypatch.setattr(sizes, "shared_memory", lambda device: 4096)
    monkeypatch.setattr(
        ops, "_launch_streamed", lambda A, *rest: (streamed.append(len(A)), launch(A, *rest))
    )
    for n in (16, 40):
        A = contraction(n, 0.8, "random").to(device)
        check(A, torch.randn(5, n, device=device), "tanh", 0.8)
    assert streamed == [40, 40]  # forward and adjoint


def test_layout_does_not_matter(device: str) -> None:
    n = 20
    A = contraction(n, 0.8, "random").to(device)
    Z = torch.randn(6, n, generator=torch.Generator().manual_seed(6)).to(device)
    X, _ = solve(A, Z, "silu")
    strided = torch.randn(6, 2 * n, device=device)[:, ::2].copy_(Z).requires_grad_()
    transposed = A.T.contiguous().T
    start = torch.zeros(1, 1, device=device).expand(6, n)
    again, _ = solve(transposed, strided, "silu", X0=start)
    assert float((again.detach() - X).abs().max()) <= 2 * TOL / (1 - 0.9)
    again.T.backward(torch.ones(1, device=device).expand(n, 6))  # a gradient without layout
    expected = gradients(A, Z, torch.ones(6, n), "silu")[1]
    assert float((strided.grad.cpu() - expected).abs().max()) <= 1e-4


def test_a_batch_of_no_samples(device: str) -> None:
    A = contraction(20, 0.8, "random").to(device).requires_grad_()
    Z = torch.empty(0, 20, device=device, requires_grad=True)
    X, report = solve(A, Z)
    X.sum().backward()
    assert X.shape == Z.grad.shape == (0, 20)
    assert not A.grad.any()
    assert report.forward.all_converged
    assert report.forward.iterations.shape == (0,)


def test_a_start_near_the_equilibrium_saves_iterations(device: str) -> None:
    A = contraction(20, 0.95, "trained").to(device)
    Z = torch.randn(4, 20, generator=torch.Generator().manual_seed(7)).to(device)
    X, cold = solve(A, Z)
    again, warm = solve(A, Z, X0=X)
    assert int(warm.forward.iterations.max()) <= 2 < int(cold.forward.iterations.max())
    assert float((again - X).abs().max()) <= TOL


def test_the_tolerance_is_relative_in_the_adjoint(device: str) -> None:
    """A loss divided by a million has a gradient divided by a million, in as many iterations."""
    A = contraction(20, 0.9, "random").to(device)
    Z = torch.randn(4, 20, generator=torch.Generator().manual_seed(8)).to(device)
    grads, counts = [], []
    for scale in (1.0, 2.0**-20):
        leaf = A.clone().requires_grad_()
        X, report = solve(leaf, Z, "tanh")
        (scale * X.square().sum()).backward()
        grads.append(leaf.grad / scale)
        counts.append(report.adjoint.iterations.tolist())
    assert torch.equal(*grads)
    assert counts[0] == counts[1]


def test_half_precision_inputs(device: str) -> None:
    """Solved in float32 for the matrices as they were rounded; the result is rounded once."""
    A = contraction(20, 0.8, "random").to(device, torch.bfloat16).requires_grad_()
    Z = torch.randn(4, 20).to(device, torch.bfloat16).requires_grad_()
    X, report = solve(A, Z)
    assert X.dtype == torch.bfloat16
    exact = solution(A.detach().float(), Z.detach().float(), "relu")
    assert report.forward.value.dtype == torch.float32
    assert float((report.forward.value.cpu() - exact).abs().max()) <= 2e-5
    assert float((X.detach().cpu() - exact).abs().max()) <= 2.0**-8 * float(exact.abs().max())
    X.sum().backward()
    assert A.grad.dtype == Z.grad.dtype == torch.bfloat16
    expected = gradients(A.float(), Z.float(), torch.ones(4, 20), "relu")
    for found, truth in zip((A.grad, Z.grad), expected, strict=True):
        assert float((found.cpu() - truth).abs().max()) <= 2.0**-7 * float(truth.abs().max())


def test_a_tolerance_beyond_float32_is_solved_to_rounding(device: str) -> None:
    A = contraction(20, 0.9, "slow").to(device)
    Z = 1000 * torch.rand(4, 20, generator=torch.Generator().manual_seed(1)).to(device)
    X, report = solve(A, Z, tol=1e-7)
    assert report.forward.all_converged
    assert float(report.forward.residual.max()) > 1e-7
    with pytest.warns(ImplicitFunctionWarning, match="finer than torch.float32 resolves"):
        tell(report)
    exact = solution(A, Z, "relu")
    assert float((X.cpu() - exact).abs().max() / exact.abs().max()) <= 1e-5


def test_second_derivatives_are_refused(device: str) -> None:
    A = contraction(5, 0.8, "random").to(device).requires_grad_()
    X, _ = solve(A, torch.randn(2, 5, device=device), "tanh")
    (gradient,) = torch.autograd.grad(X.sum(), A, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated once"):
        gradient.sum().backward()


def test_what_triton_cannot_do_is_refused(device: str) -> None:
    A, Z = contraction(5, 0.5, "random").to(device), torch.randn(2, 5, device=device)
    with pytest.raises(ValueError, match=r"torch.float64 is left to torch.*kernel='auto' can"):
        solve(A.double(), Z.double())
    with pytest.raises(ValueError, match="gelu has no Triton form"):
        solve(A, Z, "gelu")
    form, report = ACTIVATIONS["relu"], LastSolution()
    with pytest.raises(ValueError, match="the solver is Broyden"):
        equilibrium(Affine(A), Z, None, Method(form, Broyden(), Picard(), report, "triton"))
