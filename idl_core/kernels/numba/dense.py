"""The dense equilibrium and its adjoint by numba's programs."""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.equilibrium.solution import Solution, SolveStats
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import support
from idl_core.kernels.numba.memory import array
from idl_core.kernels.numba.support import Finish, limits, phi, programs
from idl_core.kernels.problem import Affine, Found, Method, unit_of_each


def obstacle(A: Tensor, Z: Tensor, X0: Tensor | None, finish: Finish, solver: Solver) -> str | None:
    """Why X = finish(X Aᵀ + Z) cannot be solved here: A (n, n), Z, X0 and slopes (m, n)."""
    n = Z.shape[-1]
    slopes = finish if isinstance(finish, Tensor) else None
    expected = ((A, (n, n)), (Z, Z.shape), (X0, Z.shape), (slopes, Z.shape))
    return support.obstacle(finish, (solver,), expected)


def solve(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found:
    """X = φ(X Aᵀ + Z) for Z (m, n), whose columns are best contiguous, as those of X will be."""
    solver = method.solver
    assert isinstance(solver, Picard)
    return _solve(A.left, Z, X0, method.activation, solver)


def solve_adjoint(
    A: Affine, slope: Tensor, grad: Tensor, solver: Solver, expected: int | None
) -> Found:
    """V = slope ∘ (V A + grad), each sample in units of its gradient."""
    assert isinstance(solver, Picard)
    unit = unit_of_each(grad)
    found = _solve(A.left.T, grad / unit, None, slope, solver)
    assert found.solution is not None
    V = found.states * unit
    return found._replace(states=V, solution=found.solution.with_value(V))


def _solve(A: Tensor, Z: Tensor, start: Tensor | None, finish: Finish, solver: Picard) -> Found:
    relative = isinstance(finish, Tensor)
    columns = Z.detach().T
    nothing = columns[:0]
    X, figures = torch.empty_like(columns), columns.new_empty(3, len(Z))
    turned = not A.is_contiguous()
    given = (
        array(A.T if turned else A),
        turned,
        array(columns),
        array(finish.T if isinstance(finish, Tensor) else nothing),
        array(nothing if start is None else start.T),
    )
    bounds = limits(solver, phi(finish), Z.dtype, relative)
    programs().dense.solve(*given, bounds, X.numpy(), figures.numpy(), torch.get_num_threads())
    stats = SolveStats(*figures.unbind())
    converged = bool((stats.residual <= stats.bound).all())
    solution = Solution(X.T, stats, solver.tol, relative, converged)
    if not relative:  # an adjoint would repeat what the forward solve has said
        solution.warn_where_rounding_decides()
    return Found(X.T, None, solution)
