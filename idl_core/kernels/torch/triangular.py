"""The affine equilibrium with strictly upper triangular A: exact, by back-substitution in blocks.

State i depends only on the states after it, so no iteration and no condition on ‖A‖∞ is needed.
Within a block the states are found one by one; each finished block is then taken out of all the
states before it in one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from idl_core.equilibrium.solution import Solution, SolveStats, row_max
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.problem import Affine, Found, Method, unit_of_each

BLOCK = 32


def _substitute(N: Tensor, right: Tensor, finish: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Solve x_i = finish(right_i + Σ_{j<i} N_ij x_j, i) for i = 0, 1, …: N (n, n), right (n, m)."""
    pending = right.clone()  # becomes x, row by row
    n = pending.shape[0]
    for start in range(0, n, BLOCK):
        end = min(start + BLOCK, n)
        for i in range(start, end):
            x_i = pending[i] = finish(pending[i], i)
            pending[i + 1 : end].addr_(N[i + 1 : end, i], x_i)
        pending[end:].addmm_(N[end:, start:end], pending[start:end])
    return pending


def solve(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found:
    """X = φ(X Aᵀ + Z) (m, n) for A.left (n, n) strictly upper triangular, Z (m, n).

    The solver's tolerance is what the residual of the direct solution is compared with; where it
    would start, X0, is of no use.
    """
    matrix, phi = A.left, method.activation.phi
    # The last state comes first: reversed, the system is lower triangular.
    reverse = _substitute(matrix.flip(0, 1), Z.T.flip(0), lambda row, _: phi(row))
    X = reverse.flip(0).T.contiguous()
    image = method.activation.phi_(torch.addmm(Z, X, matrix.T))
    return Found(X, None, _measured(X, image, method.solver.tol, _sizes(matrix, X, Z)))


def solve_adjoint(
    A: Affine, slope: Tensor, grad: Tensor, solver: Solver, expected: int | None
) -> Found:
    """V = slope ∘ (V A + grad) (m, n) for A.left (n, n) strictly upper triangular."""
    columns, unit = slope.T, unit_of_each(grad)
    right = grad / unit
    V = _substitute(A.left.T, right.T, lambda row, i: row * columns[i]).T.contiguous()
    image = torch.addmm(right, V, A.left).mul_(slope)
    solution = _measured(V, image, solver.tol, _sizes(A.left.T, V, right))
    return Found(V * unit, None, replace(solution, value=V * unit, relative=True))


def _sizes(A: Tensor, X: Tensor, Z: Tensor) -> Tensor:
    """Sum of the magnitudes that are summed up in each entry of X Aᵀ + Z (m, n)."""
    return torch.addmm(Z.abs(), X.abs(), A.abs().T)


def _measured(value: Tensor, image: Tensor, tol: float, sizes: Tensor) -> Solution:
    """The outcome of a direct solve: its residual is the rounding of sums of these sizes."""
    residual, n = row_max((image - value).abs()), value.shape[1]
    rounding = row_max(sizes) * ((n + 2) * torch.finfo(value.dtype).eps)
    stats = SolveStats(residual, rounding.clamp_(min=tol), torch.ones_like(residual))
    return Solution(value, stats, tol, known_converged=bool(stats.converged.all()))
