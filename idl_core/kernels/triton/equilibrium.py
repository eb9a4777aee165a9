"""The affine equilibrium and its adjoint by the Triton operators: one launch each.

Nothing here waits for the device: how the solves ended comes back as a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.kernels.problem import Affine, Found, Method, Solved
from idl_core.kernels.triton import ops  # noqa: F401 - registers the operators


def solve(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found:
    """Solve X = φ(X Aᵀ + Z) for Z (m, n), from X0 (m, n) or φ(Z)."""
    phi, solver = name_of(method), method.solver
    if A.right is None:
        states, numbers = torch.ops.idl.solve_chain(
            A.left, Z[None], None, X0, None,
            Z.shape[0], 1, 0, phi, False, solver.tol, solver.max_iter,
        )  # fmt: skip
        return Found(states[0], None, None, numbers)
    start = None if X0 is None else X0.to(A.right.dtype) @ A.right
    X, y, numbers = torch.ops.idl.solve_low_rank(
        A.left, A.right, Z, start, None, phi, False, solver.tol, solver.max_iter
    )
    return Found(X, y, None, numbers)


def solve_adjoint(solved: Solved, grad: Tensor) -> Found:
    """Solve V = φ' ∘ (V A + grad) for the gradient of X (m, n)."""
    A, method = solved.A, solved.method
    phi, solver = name_of(method), method.adjoint_solver
    point = solved.X if solved.Z is None else solved.preactivation()
    if A.right is None:
        states, numbers = torch.ops.idl.solve_chain(
            A.left, grad[None], None, None, point[None],
            grad.shape[0], 1, 0, phi, True, solver.tol, solver.max_iter,
        )  # fmt: skip
        return Found(states[0], None, None, numbers)
    V, w, numbers = torch.ops.idl.solve_low_rank(
        A.right, A.left, grad, None, point, phi, True, solver.tol, solver.max_iter
    )
    return Found(V, w, None, numbers)


def name_of(method: Method) -> str:
    """What the programs know φ by."""
    assert method.activation.name is not None
    return method.activation.name
