"""The low-rank equilibrium and its adjoint against float64."""

from __future__ import annotations

import pytest
import torch
from equilibria import gradients, solution

from idl_core import Picard
from idl_core.activations import ACTIVATIONS
from idl_core.equilibrium.solution import LastSolution
from idl_core.kernels import Affine, Method, equilibrium


def factors(n: int, r: int, kappa: float) -> tuple[torch.Tensor, torch.Tensor]:
    """‖L‖∞ = kappa and ‖Rᵀ‖∞ = 1."""
    generator = torch.Generator().manual_seed(n + r)
    L, R = torch.randn(n, r, generator=generator), torch.rand(n, r, generator=generator)
    return L * (kappa / L.abs().sum(1).max()), R / R.sum(0).max()


@pytest.mark.parametrize(
    ("m", "n", "r", "activation"),
    [(1, 1, 1, "relu"), (9, 20, 3, "silu"), (3, 70, 17, "tanh"), (10, 65, 1, "leaky_relu"),
     (2, 40, 40, "sigmoid"), (3, 30, 5, "identity")],
)  # fmt: skip
def test_against_float64(m: int, n: int, r: int, activation: str, device: str) -> None:
    L, R = (t.to(device).requires_grad_() for t in factors(n, r, 0.9))
    Z = torch.randn(m, n, device=device, requires_grad=True)
    report, form = LastSolution(), ACTIVATIONS[activation]
    X = equilibrium(Affine(L, R), Z, None, Method(form, Picard(), Picard(), report, "triton"))
    A = (L @ R.T).detach()
    assert float((X.detach().cpu() - solution(A, Z, activation)).abs().max()) <= 4e-5
    assert report.forward.all_converged
    assert report.forward.iterations.shape == (m,)
    G = torch.randn_like(X)
    (X * G).sum().backward()
    assert report.adjoint.all_converged
    of_A, of_Z = gradients(A, Z, G, activation)
    left, right = (t.detach().cpu().double() for t in (L, R))
    for found, expected in (
        (L.grad, of_A @ right),
        (R.grad, of_A.T @ left),
        (Z.grad, of_Z),
    ):
        error = float((found.cpu() - expected).abs().max())
        assert error <= 5e-5 * max(1.0, float(expected.abs().max()))


def test_slow_and_not_at_all(device: str) -> None:
    L, R = (t.to(device) for t in factors(30, 2, 0.999))
    L = L.abs()
    L *= 0.999 / L.sum(1, keepdim=True)
    Z, form, report = torch.rand(3, 30, device=device), ACTIVATIONS["relu"], LastSolution()
    X = equilibrium(Affine(L, R), Z, None, Method(form, Picard(), Picard(), report, "triton"))
    assert report.forward.all_converged
    assert int(report.forward.iterations.max()) <= 30
    exact = solution(L @ R.T, Z, "relu")
    assert float((X.cpu() - exact).abs().max() / exact.abs().max()) <= 4e-3
    Z[1, 1] = float("nan")
    again = equilibrium(
        Affine(L, R), Z, X.detach(), Method(form, Picard(), Picard(), report, "triton")
    )
    assert report.forward.converged.tolist() == [True, False, True]
    assert int(report.forward.iterations.max()) <= 2  # from where it ended
    assert not again[1].isfinite().all()
    empty = equilibrium(
        Affine(L, R), Z[:0], None, Method(form, Picard(), Picard(), report, "triton")
    )
    assert empty.shape == (0, 30)


def test_a_gradient_is_solved_as_if_it_were_alone(device: str) -> None:
    L, R = (t.to(device) for t in factors(30, 2, 0.95))
    Z, form = torch.rand(3, 30, device=device, requires_grad=True), ACTIVATIONS["relu"]
    found = []
    for odd in (1.0, 1e20):
        report = LastSolution()
        X = equilibrium(Affine(L, R), Z, None, Method(form, Picard(), Picard(), report, "triton"))
        G = torch.ones_like(X)
        G[1] *= odd
        found.append(torch.autograd.grad(X, Z, G)[0])
        assert report.adjoint.all_converged
    assert torch.equal(found[0][[0, 2]], found[1][[0, 2]])


def test_too_high_a_rank_is_refused(device: str) -> None:
    L, R = torch.zeros(2, 130, 129, device=device)
    Z, form = torch.zeros(1, 130, device=device), ACTIVATIONS["relu"]
    with pytest.raises(ValueError, match="the rank is 129; it takes at most 128"):
        equilibrium(
            Affine(L, R), Z, None, Method(form, Picard(), Picard(), LastSolution(), "triton")
        )
