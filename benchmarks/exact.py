"""The equilibrium and its gradient in float64, which every package is measured against."""

from __future__ import annotations

from functools import cache

import torch
from cases import KAPPA, Case
from torch import Tensor
from torch.nn.functional import cross_entropy

from idl_core.equilibrium import Anderson, fixed_point

TOL = 3e-6


def attainable(X: Tensor) -> float:
    """The tolerance, or the rounding error of float32 at the size of X where that is larger."""
    return max(TOL, 4 * torch.finfo(torch.float32).eps * float(X.abs().max()))


def effective_A(case: Case) -> Tensor:
    weights = case.weights
    return weights["A"] if case.rank is None else weights["L"] @ weights["R"].T


def forward_residual(case: Case, X: Tensor) -> float:
    """max |relu(X Aᵀ + U Bᵀ) - X|."""
    Z = case.inputs @ case.weights["B"].T
    return float(((X @ effective_A(case).T + Z).relu() - X).abs().max())


def reference(case: Case) -> Tensor:
    """Ŷ (m, q) of the equilibrium in float64."""
    C, D = (case.weights[name].double() for name in "CD")
    return reference_states(case) @ C.T + case.inputs.double() @ D.T


@cache
def reference_states(case: Case) -> Tensor:
    """X (m, n) of the equilibrium in float64.

    Solved by acceleration and then certified by its residual, whoever found it: as ‖A‖∞ ≤ 0.99,
    X is within 100 residuals of the equilibrium.
    """
    A, U = effective_A(case).double(), case.inputs.double()
    Z = U @ case.weights["B"].double().T
    tol = 1e-13 * max(1.0, float(Z.abs().max()) / (1 - KAPPA))
    solution = fixed_point(
        lambda X: torch.addmm(Z, X, A.T).relu_(), torch.zeros_like(Z), Anderson(tol=tol)
    )
    # The image, not the iterate: acceleration mixes iterates and can leave a state that is 0
    # a little above it, where the slope of relu, and with it the gradient, is another.
    X = torch.addmm(Z, solution.value, A.T).relu_()
    residual = float((torch.addmm(Z, X, A.T).relu_() - X).abs().max())
    if residual > 1e-9:
        raise ArithmeticError(f"no reference for {case.name}: residual {residual:.1e}")
    return X


def gradient_error(case: Case, grad_B: Tensor) -> float:
    """Largest error of the loss's gradient with respect to B, relative to its largest entry."""
    exact = _reference_gradient(case)
    return float((grad_B - exact).abs().max()) / float(exact.abs().max())


@cache
def _reference_gradient(case: Case) -> Tensor:
    """dL/dB (n, p) in float64: Vᵀ U, where V = φ' ∘ (V A + dL/dX) and L is the cross-entropy."""
    X = reference_states(case).clone().requires_grad_()
    U, C, D = case.inputs.double(), case.weights["C"].double(), case.weights["D"].double()
    (incoming,) = torch.autograd.grad(cross_entropy(X @ C.T + U @ D.T, case.targets), X)
    A, slope = effective_A(case).double(), (X > 0).double()
    solution = fixed_point(
        lambda V: slope * (V @ A + incoming),
        torch.zeros_like(incoming),
        Anderson(tol=1e-12 * float(incoming.abs().max())),
    )
    return (solution.value.T @ U).detach()
