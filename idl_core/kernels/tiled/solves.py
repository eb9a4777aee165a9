"""Solves by tiles as the rest of the library sees them: tensors in, a `Solution` out, or None.

None is the answer where tiles cannot solve it: then torch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import ROUNDING_UNITS, Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.sweep import Chain
from idl_core.kernels.tiled import ROWS, TILE_BYTES

# Iterations beyond which acceleration is worth its overhead.
_SLOW = 64
# Rows of a product beyond which a BLAS is faster.
_MOST_ROWS = 160

Finish = Activation | Tensor
"""What follows an affine map: φ, or the slopes that stand for it in an adjoint."""


def solve_chain(chain: Chain, solver: Solver, relative: bool) -> SolvedChain | None:
    """All steps of a chain; the arguments are those of `Sweep`."""
    if not _suits(chain.inputs, chain.finish, sum(chain.into_carry.shape)):
        return None
    if not isinstance(solver, Picard):
        return None
    from idl_core.kernels.tiled import chain as compiled

    (steps, p, m), (n, rest) = chain.inputs.shape, chain.into_drive.shape
    arrays, like = _arrays(chain), chain.inputs
    slots, changes = like.new_empty(steps, n + rest, m), like.new_empty(n, m)
    counts, drives = _counts(like), like.new_zeros(_tiles(like))
    outcome = compiled.Outcome(*(x.numpy() for x in (slots, changes, counts, drives)))
    limits = _limits(solver, chain.finish, like, relative)
    if not compiled.solve(arrays, limits, outcome, torch.get_num_threads()):
        return None
    unit = float(drives.amax()) if relative and len(drives) else 1.0
    state = slots[-1, :n].T.clone()
    solution = _solution(state, changes, counts, solver.tol * unit)
    return SolvedChain(chain, slots, solution)


class SolvedChain:
    """A chain that is solved, with the interface of a `Sweep`."""

    def __init__(self, chain: Chain, slots: Tensor, solution: Solution) -> None:
        self.chain, self.slots, self._solution = chain, slots, solution

    def run(self) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, len(self.slots), self.slots

    def last_carry(self) -> Tensor:
        return self.chain.into_carry @ self.slots[-1]

    def solution(self) -> Solution:
        return self._solution


def recall(chain: Chain, X: Tensor) -> Tensor | None:
    """State, carry and input of all steps (steps, n + k + p, m), the last first, from the states
    X (steps, n, m)."""
    if not _suits(chain.inputs, chain.finish, sum(chain.into_carry.shape)):
        return None
    from idl_core.kernels.tiled import chain as compiled

    steps, n, m = X.shape
    slots = X.new_empty(steps, n + chain.into_drive.shape[1], m)
    compiled.recall(_arrays(chain), _array(X), slots.numpy(), torch.get_num_threads())
    return slots


def solve_dense(
    A: Tensor,
    Z: Tensor,
    start: Tensor | None,
    finish: Finish,
    solver: Solver,
    unit: Tensor | None = None,
) -> Solution | None:
    """X = finish(X Aᵀ + Z) for Z (m, n), whose columns are best contiguous, as those of X will be.

    The tolerance is in units of `unit` where that is given.
    """
    if not (_suits(Z, finish, len(A)) and isinstance(solver, Picard)):
        return None
    from idl_core.kernels.tiled import dense as compiled

    limits = _limits(solver, finish, Z, False)
    tol = solver.tol
    if unit is not None:
        tol *= float(unit)
        limits = limits._replace(tol=limits.tol.dtype.type(tol))
    columns = Z.T
    X, changes = (torch.empty_like(columns, memory_format=torch.contiguous_format) for _ in "Xc")
    counts, nothing = _counts(columns), columns[:0]
    slopes = finish.T if isinstance(finish, Tensor) else nothing
    first = nothing if start is None else start.T
    given = [_array(x) for x in (_columns(A.T), columns, slopes, first)]
    found = [x.numpy() for x in (X, changes, counts)]
    if not compiled.solve(*given, limits, *found, torch.get_num_threads()):
        return None
    return _solution(X.T, changes, counts, tol)


@cache
def why_not() -> str | None:
    """Why nothing can be solved by tiles here; None if it can."""
    try:
        from idl_core.kernels.tiled import chain, dense  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: nowhere to cache what is compiled
        return f"{error} (pip install 'idl[fast]')"
    return None


def _suits(like: Tensor, finish: Finish, rows: int) -> bool:
    known = isinstance(finish, Tensor) or finish.negative_slope is not None
    return like.device.type == "cpu" and known and rows <= _MOST_ROWS and why_not() is None


def _limits(solver: Picard, finish: Finish, like: Tensor, relative: bool) -> Any:
    from idl_core.kernels.tiled.picard import Limits

    number = np.float64 if like.dtype == torch.float64 else np.float32
    below = 1.0 if isinstance(finish, Tensor) else finish.negative_slope
    rounding = ROUNDING_UNITS * torch.finfo(like.dtype).eps
    most = min(solver.max_iter, _SLOW)
    return Limits(number(solver.tol), relative, number(rounding), most, number(below))


def _arrays(chain: Chain) -> Any:
    from idl_core.kernels.tiled.chain import TiledChain

    n, nothing = len(chain.into_drive), chain.inputs[:0]
    K, left = chain.into_carry.T, chain.left
    inner, outer = (left[:, :0] if chain.right is None else chain.right), left.T
    slopes = chain.finish if isinstance(chain.finish, Tensor) else nothing
    added = nothing if chain.added is None else chain.added
    return TiledChain(
        *(_array(_columns(M)) for M in (inner, outer, chain.into_drive.T, K[:n], K[n:])),
        *(_array(x) for x in (chain.first_carry, chain.inputs, added, slopes)),
    )


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def _columns(M: Tensor) -> Tensor:
    """M with columns of zeros up to a multiple of the rows that are summed up at once."""
    missing = -M.shape[1] % ROWS
    return F.pad(M.detach(), (0, missing)) if missing else M


def _tiles(columns: Tensor) -> int:
    return -(-columns.shape[-1] * columns.itemsize // TILE_BYTES)


def _counts(columns: Tensor) -> Tensor:
    return torch.zeros(_tiles(columns), dtype=torch.int64)


def _solution(X: Tensor, changes: Tensor, counts: Tensor, tol: float) -> Solution:
    """For X (m, n), the changes of the last iterations (n, m), and the iterations of each tile."""
    maps = np.repeat(counts.numpy(), TILE_BYTES // X.itemsize)[: len(X)]
    return Solution(X, torch.from_numpy(maps), changes.T, tol, True)
