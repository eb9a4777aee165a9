"""The dense affine equilibrium X = φ(X Aᵀ + Z) and its adjoint, in torch.

The solver iterates in place: one product-and-sum and one in-place φ an iteration.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.problem import Affine, Found, Method, unit_of_each

# The unit of a tolerance for what is in its own units already.
ONE = torch.ones(())


def image(activation: Activation, Z: Tensor) -> Tensor:
    """φ(Z) in memory of its own: a user's φ may overwrite its argument."""
    return activation.phi(Z) if activation.name is not None else activation.phi(Z.clone())


def solve(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found:
    """Solve X = φ(X Aᵀ + Z): A.left (n, n), Z (m, n), X0 (m, n) or None for φ(Z)."""
    Z, transposed = Z.contiguous(), A.left.T  # the solvers work on rows
    phi_ = method.activation.phi_

    def step(X: Tensor, out: Tensor) -> Tensor:
        return phi_(torch.addmm(Z, X, transposed, out=out))

    solution = method.solver.solve(step, image(method.activation, Z) if X0 is None else X0)
    return Found(solution.value, None, solution)


def solve_adjoint(
    A: Affine, slope: Tensor, grad: Tensor, solver: Solver, expected: int | None
) -> Found:
    """Solve V = slope ∘ (V A + grad): A.left (n, n), slope = φ'(pre-activation) and grad (m, n).

    The tolerance of each sample is in units of its gradient, so that scaling a loss scales its
    gradient. `expected`: iterations of the forward solve, which contracts at nearly that rate.
    """
    unit, slope, matrix = unit_of_each(grad), slope.contiguous(), A.left
    right = torch.div(grad, unit).contiguous()

    def step(V: Tensor, out: Tensor) -> Tensor:
        return torch.addmm(right, V, matrix, out=out).mul_(slope)

    solution = solver.solve(step, slope * right, ONE, expected)
    solution = replace(solution, value=solution.value * unit, relative=True)
    return Found(solution.value, None, solution)
