"""The states X = φ(AX + BU) of given weights, found with few applications of the map."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from idl_core.equilibrium import Anderson, ImplicitFunctionWarning, Picard, Solution

Elementwise = Callable[[Tensor], Tensor]

# Rows of A that lie on the ball ‖a‖₁ = κ make Picard iteration contract by κ only.
WINDOW = 10


def equilibrium_states(
    A: Tensor,
    B: Tensor,
    inputs: Tensor,
    phi: Elementwise,
    tol: float = 1e-6,
    max_iter: int = 5000,
) -> Solution:
    """Solve X = φ(X Aᵀ + U Bᵀ), Picard iteration handing over to Anderson acceleration.

    Args:
        A: (n, n) with ‖A‖∞ < 1; B: (n, p).
        inputs: U (m, p), a row a sample.
        phi: elementwise activation.
        tol: bound on max|φ(XAᵀ + UBᵀ) - X| of each sample; where the number format does not
            resolve it, what it resolves.
        max_iter: bound on applications of the map.

    Warns:
        ImplicitFunctionWarning: where samples did not converge.
    """
    shift = inputs @ B.T
    solver = Picard(tol, max_iter, then=Anderson(window=WINDOW))
    with warnings.catch_warnings():
        # SIM's default of 1e-6 is finer than float32 resolves where states are above 4 or so.
        warnings.filterwarnings("ignore", "tol=.* is finer than", ImplicitFunctionWarning)
        solution = solver.solve(
            lambda x, out: phi(torch.addmm(shift, x, A.T)), torch.zeros_like(shift)
        )
    solution.warn_unless_converged("the equilibrium of the SIM model")
    return solution
