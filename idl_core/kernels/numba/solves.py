"""Solves by tiles as the rest of the library sees them: tensors in, a `Solution` out, or None.

None is the answer where tiles cannot solve it: then torch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.figured_solution import FiguredSolution
from idl_core.equilibrium.solution import ROUNDING_UNITS, Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import SMOOTH, TILE_BYTES
from idl_core.kernels.sweep import Chain

# Of a matrix in the last-level cache, which every tile goes through: beyond, a BLAS is faster.
MOST_BYTES = 1 << 25
# Of what is read and written in an iteration of a tile, in the second-level cache.
MOST_BYTES_OF_TILE = 1 << 21

Finish = Activation | Tensor
"""What follows an affine map: φ, or the slopes that stand for it in an adjoint."""


def solve_chain(chain: Chain, solver: Solver, relative: bool) -> SolvedChain | None:
    """All steps of a chain; the arguments are those of `Sweep`."""
    if not (_chain_suits(chain) and isinstance(solver, Picard)):
        return None
    (steps, _, m), (n, rest) = chain.inputs.shape, chain.into_drive.shape
    arrays, like = _arrays(chain), chain.inputs
    slots, figures = like.new_empty(steps, n + rest, m), like.new_zeros(3, m)
    drives = like.new_zeros(-(-m * like.itemsize // TILE_BYTES))
    outcome = modules().chain.Outcome(slots.numpy(), figures.numpy(), drives.numpy())
    bounds = limits(solver, phi(chain.finish), like.dtype, relative)
    if not modules().chain.solve(arrays, bounds, outcome, torch.get_num_threads()):
        return None
    unit = float(drives.amax()) if relative and len(drives) else 1.0
    state = slots[-1, :n].T.clone()
    solution = FiguredSolution(state, figures, solver.tol * unit, all_converged=True)
    return SolvedChain(chain, slots, solution)


class SolvedChain:
    """A chain that is solved, with the interface of a `Sweep`."""

    def __init__(self, chain: Chain, slots: Tensor, solution: FiguredSolution) -> None:
        self.chain, self.slots, self._solution = chain, slots, solution

    def run(self) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, len(self.slots), self.slots

    def last_carry(self) -> Tensor:
        return self.chain.into_carry @ self.slots[-1]

    def solution(self) -> FiguredSolution:
        return self._solution


def recall(chain: Chain, X: Tensor) -> Tensor | None:
    """State, carry and input of all steps (steps, n + k + p, m), the last first, from the states
    X (steps, n, m)."""
    if not _chain_suits(chain):
        return None
    steps, n, m = X.shape
    slots = X.new_empty(steps, n + chain.into_drive.shape[1], m)
    modules().chain.recall(_arrays(chain), _array(X), slots.numpy(), torch.get_num_threads())
    return slots


def solve_dense(
    A: Tensor,
    Z: Tensor,
    start: Tensor | None,
    finish: Finish,
    solver: Solver,
    relative: bool,
) -> Solution | None:
    """X = finish(X Aᵀ + Z) for Z (m, n), whose columns are best contiguous, as those of X will be.

    Where `relative`, the tolerance is in units of max|Z|.
    """
    n = Z.shape[1]
    slopes = finish if isinstance(finish, Tensor) else None
    expected = ((A, (n, n)), (Z, Z.shape), (start, Z.shape), (slopes, Z.shape))
    if not (suits(finish, n * n, expected) and isinstance(solver, Picard)):
        return None
    columns = Z.detach().T
    nothing = columns[:0]
    X, figures = torch.empty_like(columns), columns.new_empty(3, len(Z))
    turned = not A.is_contiguous()
    given = (
        _array(A.T if turned else A),
        turned,
        _array(columns),
        _array(finish.T if isinstance(finish, Tensor) else nothing),
        _array(nothing if start is None else start.T),
    )
    bounds = limits(solver, phi(finish), Z.dtype, relative)
    found = X.numpy(), figures.numpy()
    unit = modules().dense.solve(*given, bounds, *found, torch.get_num_threads())
    tol = solver.tol * (float(unit) if relative else 1.0)
    converged = bool((figures[0] <= figures[1]).all())
    solution = FiguredSolution(X.T, figures, tol, all_converged=converged)
    if not relative:  # an adjoint would repeat what the forward solve has said
        solution.say_where_rounding_decides()
    return solution


def rows_within(A: Tensor, radius: float) -> bool:
    """Whether no row of A sums up to more in magnitude; False too where it is not known here."""
    like = _LIKE.get(A.dtype)
    if A.device.type != "cpu" or like is None or why_not() is not None:
        return False
    rows, columns = A.shape
    if A.is_contiguous():
        return modules().norm.rows_within(A.data_ptr(), (rows, columns), radius, like)
    if A.T.is_contiguous():
        return modules().norm.columns_within(A.data_ptr(), (columns, rows), radius, like)
    return False


_LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}


@cache
def why_not() -> str | None:
    """Why nothing can be solved by tiles here; None if it can."""
    try:
        modules()
    except (ImportError, RuntimeError) as error:  # RuntimeError: nowhere to cache what is compiled
        return f"{error} (pip install 'idl[fast]')"
    return None


class _Modules(NamedTuple):
    picard: ModuleType
    chain: ModuleType
    dense: ModuleType
    model: ModuleType
    norm: ModuleType
    samples: ModuleType


@cache
def modules() -> _Modules:
    """What needs numba, imported when it is first used."""
    from idl_core.kernels.numba import chain, dense, model, norm, picard, samples

    return _Modules(picard, chain, dense, model, norm, samples)


def suits(
    finish: Finish,
    size: int,
    expected: tuple[tuple[Tensor | None, tuple[int, ...]], ...],
    smooth: bool = False,
) -> bool:
    """Whether tiles can do it, and better than torch: for matrices of at most `size` numbers.

    Args:
        expected: what they would be given, and the shapes they would read: compiled code looks at
            none. Where one is not as expected it is for torch to say so.
        smooth: whether φ may be more than piecewise linear.
    """
    if not (isinstance(finish, Tensor) or finish.negative_slope is not None or smooth):
        return False
    dtype = next(x.dtype for x, _ in expected if x is not None)
    for x, shape in expected:
        if x is not None and not (
            x.is_cpu and x.dtype is dtype and x.shape == shape and type(x) in _PLAIN
        ):
            return False
    small = size * dtype.itemsize <= MOST_BYTES
    return small and dtype in _LIKE and why_not() is None


# Others may have no memory of their own.
_PLAIN = (Tensor, torch.nn.Parameter)


def _chain_suits(chain: Chain) -> bool:
    (steps, p, m), k, n = chain.inputs.shape, len(chain.first_carry), len(chain.into_drive)
    width = n if chain.right is None else chain.right.shape[-1]
    slopes = chain.finish if isinstance(chain.finish, Tensor) else None
    expected = (
        (chain.inputs, (steps, p, m)),
        (chain.left, (n, width or n)),
        (chain.right, (n, width)),
        (chain.into_carry, (k, n + k + p)),
        (chain.into_drive, (n, k + p)),
        (chain.first_carry, (k, m)),
        (chain.added, (steps, k, m)),
        (slopes, (steps, n, m)),
    )
    return suits(chain.finish, (n + k + p) ** 2, expected)


def phi(finish: Finish) -> tuple[int, float]:
    """What compiled programs know φ by: -1 and its slope below zero, or its place in `SMOOTH`."""
    if isinstance(finish, Tensor):
        return -1, 1.0
    if finish.negative_slope is not None:
        return -1, finish.negative_slope
    return SMOOTH.index(str(finish.name)), 0.0


@cache
def limits(solver: Picard, phi: tuple[int, float], dtype: torch.dtype, relative: bool) -> Any:
    number = type(_LIKE[dtype])
    rounding = ROUNDING_UNITS * torch.finfo(dtype).eps
    known = phi[0], number(phi[1])
    given = number(solver.tol), relative, number(rounding), solver.max_iter, known
    return modules().picard.Limits(*given, solver.then is not None)


def _arrays(chain: Chain) -> Any:
    n, nothing = len(chain.into_drive), chain.inputs[:0]
    K, left = chain.into_carry.T, chain.left
    inner, outer = (left[:, :0] if chain.right is None else chain.right), left.T
    slopes = chain.finish if isinstance(chain.finish, Tensor) else nothing
    added = nothing if chain.added is None else chain.added
    return modules().chain.TiledChain(
        *(_array(M) for M in (inner, outer, chain.into_drive.T, K[:n], K[n:])),
        *(_array(x) for x in (chain.first_carry, chain.inputs, added, slopes)),
    )


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()
