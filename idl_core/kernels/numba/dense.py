"""The dense equilibrium and its adjoint by numba's programs; None is where they cannot solve it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from idl_core.equilibrium.criterion import Criterion
from idl_core.equilibrium.solution import LastChange, Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import support
from idl_core.kernels.numba.memory import array
from idl_core.kernels.numba.support import Finish, below, limits, programs
from idl_core.kernels.problem import Affine, Found, Method, unit_of_each

_ONE = 1.0


def obstacle(A: Tensor, Z: Tensor, X0: Tensor | None, finish: Finish, solver: Solver) -> str | None:
    """Why X = finish(X Aᵀ + Z) cannot be solved here: A (n, n), Z, X0 and slopes (m, n)."""
    n = Z.shape[-1]
    slopes = finish if isinstance(finish, Tensor) else None
    expected = ((A, (n, n)), (Z, Z.shape), (X0, Z.shape), (slopes, Z.shape))
    return support.obstacle(finish, (solver,), expected)


def solve(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found | None:
    """X = φ(X Aᵀ + Z) for Z (m, n), whose columns are best contiguous, as those of X will be."""
    solver = method.solver
    assert isinstance(solver, Picard)
    return _solve(A.left, Z, X0, method.activation, solver)


def solve_adjoint(
    A: Affine, slope: Tensor, grad: Tensor, solver: Solver, expected: int | None
) -> Found | None:
    """V = slope ∘ (V A + grad), each sample in units of its gradient."""
    assert isinstance(solver, Picard)
    unit = unit_of_each(grad)
    found = _solve(A.left.T, grad / unit, None, slope, solver)
    if found is None or found.solution is None:
        return None
    V = found.states * unit
    return found._replace(states=V, solution=found.solution.with_value(V))


def _solve(
    A: Tensor, Z: Tensor, start: Tensor | None, finish: Finish, solver: Picard
) -> Found | None:
    relative = isinstance(finish, Tensor)
    columns = Z.detach().T
    nothing = columns[:0]
    X, changes = columns.new_empty(2, *columns.shape).unbind(0)
    counts = np.zeros(len(Z), np.int64)
    turned = not A.is_contiguous()
    given = (
        array(A.T if turned else A),
        turned,
        array(columns),
        array(finish.T if isinstance(finish, Tensor) else nothing),
        array(nothing if start is None else start.T),
    )
    bounds = limits(solver, below(finish), Z.dtype, relative)
    found = X.numpy(), changes.numpy(), counts
    programs().dense.solve(*given, bounds, *found, torch.get_num_threads())
    if not counts.all():
        return None
    # It says where the number format, not the tolerance, has ended a solve.
    Criterion(solver.tol, _ONE if relative else None).measure(changes.T, X.T)
    measured = LastChange(changes.T, X.T, solver.tol, torch.from_numpy(counts))
    return Found(X.T, None, Solution(X.T, measured, solver.tol, relative, True))
