"""The affine equilibrium with A = L Rᵀ: solved for the r numbers Rᵀx, A is never formed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from idl_core.equilibrium.criterion import Criterion
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels.problem import Affine, Found, Method, unit_of_each
from idl_core.kernels.torch.dense import ONE

# The equations of a sample cost n r² to form, an iteration 2 n r: worth some ten iterations.
DIRECT_RANK = 8


def solve(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found:
    """Solve y = φ(y Lᵀ + Z) R for y = X R (m, r): L and R (n, r), Z and X0 (m, n).

    With ‖L‖∞ ≤ 1 the residual of X is no larger than that of y, which the solution speaks of.
    """
    assert A.right is not None
    if not A.left.shape == A.right.shape == (Z.shape[1], A.left.shape[1]):
        raise RuntimeError(
            f"factors of shape {tuple(A.left.shape)} and {tuple(A.right.shape)} do not go with "
            f"states of shape {tuple(Z.shape)}"
        )
    transposed, R, phi_ = A.left.T, _by_columns(A.right), method.activation.phi_
    # One buffer of X's size for all: fresh memory of that size costs more than what is done in it.
    X = Z.clone()

    def state(y: Tensor) -> Tensor:
        return phi_(torch.addmm(Z, y, transposed, out=X))

    def step(y: Tensor, out: Tensor) -> Tensor:
        return torch.mm(state(y), R, out=out)

    solution = method.solver.solve(step, (phi_(X) if X0 is None else X0) @ R)
    return Found(state(solution.value), solution.value, solution)


def _by_columns(M: Tensor) -> Tensor:
    """M (n, r) laid out by columns: a product with few columns is then several times faster."""
    return M.T.contiguous().T


def solve_adjoint(
    A: Affine, slope: Tensor, grad: Tensor, solver: Solver, expected: int | None
) -> Found:
    """Solve V = slope ∘ (V L Rᵀ + grad) for V (m, n), by way of w = V L (m, r).

    It is linear in w: up to rank `DIRECT_RANK` each sample's r equations are formed and solved.
    The tolerance of each sample is in units of its gradient.
    """
    assert A.right is not None
    transposed, L = A.right.T, _by_columns(A.left)
    unit = unit_of_each(grad)
    right = grad / unit
    V = slope * right

    def value(w: Tensor) -> Tensor:
        return torch.addmm(right, w, transposed, out=V).mul_(slope)

    def step(w: Tensor, out: Tensor) -> Tensor:
        return torch.mm(value(w), L, out=out)

    if len(transposed) <= DIRECT_RANK:
        w = _direct(L, A.right, slope, V @ L)
        criterion = Criterion(solver.tol, ONE)
        image = step(w, torch.empty_like(w))
        criterion.measure((image - w).abs(), image)
        solution = criterion.solution(w, maps=1)
    else:
        solution = solver.solve(step, V @ L, ONE, expected)
        value(solution.value)
    solution = replace(solution, value=solution.value * unit, relative=True)
    return Found(V.mul_(unit), solution.value, solution)


def _direct(L: Tensor, R: Tensor, slope: Tensor, right: Tensor) -> Tensor:
    """w (m, r) with w_i = w_i K_i + right_i, where K_i = Rᵀ diag(slope_i) L (r, r)."""
    (n, r), m = L.shape, len(slope)
    products = (R.T[:, None] * L.T[None]).reshape(r * r, n)  # rows R_k ∘ L_l
    K = (slope @ products.T).view(m, r, r)
    identity = torch.eye(r, dtype=L.dtype, device=L.device)
    w: Tensor = torch.linalg.solve_ex((identity - K).mT, right)[0]
    return w
