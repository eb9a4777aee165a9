"""The states X = φ(AX + BU) of given weights, found with few applications of the map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idl_core.equilibrium import Anderson, Solution

Elementwise = Callable[[Tensor], Tensor]

# Earlier differences that are combined. On MNIST's SIM of 112 states, 5 to 10 took 230 to 170 maps
# for 2,000 samples; 15 took 530, and longer for each.
_WINDOW = 7


def equilibrium_states(
    A: Tensor,
    B: Tensor,
    inputs: Tensor,
    phi: Elementwise,
    tol: float = 1e-6,
    max_iter: int = 5000,
) -> Solution:
    """Solve X = φ(X Aᵀ + U Bᵀ) by Anderson acceleration.

    Rows of A that lie on the ball ‖a‖₁ = κ make Picard iteration contract by κ only: it takes
    thousands of maps from the start, so that it is not tried first.

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
    solver = Anderson(_WINDOW, tol, max_iter)
    # With a unit nothing is said of a tol that is finer than the number format resolves: SIM's
    # default is, of float32, where states are above 4 or so.
    solution = solver.solve(
        lambda x, out: phi(torch.addmm(shift, x, A.T)),
        torch.zeros_like(shift),
        unit=shift.new_ones(()),
    )
    solution.warn_unless_converged("the equilibrium of the SIM model")
    return solution
