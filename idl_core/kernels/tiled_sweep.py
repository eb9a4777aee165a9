"""A chain of equilibria solved tile by tile, where numba is installed and it pays; else by `Sweep`.

The tiles are shared out to as many threads as torch uses; the result does not depend on how many.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import ROUNDING_UNITS, Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.sweep import Chain, Sweep

# Iterations of a step beyond which acceleration is worth its overhead: `Sweep` knows how to.
_SLOW = 64
# Features of a step beyond which a BLAS is faster.
_MOST_FEATURES = 256


def sweep_of(chain: Chain, solver: Solver, *, relative: bool = False) -> Sweep | TiledSweep:
    """What solves the chain; the arguments are those of `Sweep`."""
    tiles = _tiles_for(chain)
    if tiles is not None and isinstance(solver, Picard):
        tiled = TiledSweep(tiles, chain, solver, relative)
        if tiled.converged:
            return tiled
    return Sweep(chain, solver, relative=relative)


def recalled(chain: Chain, X: Tensor) -> Tensor:
    """State, carry and input of all steps (steps, n + k + p, m), the last step first.

    Formed from the states X (steps, n, m), in which the carries are affine.
    """
    (steps, p, m), (k, _), n = chain.inputs.shape, chain.first_carry.shape, X.shape[1]
    tiles = _tiles_for(chain)
    if tiles is not None:
        arrays = _arrays(tiles, chain)
        slots = X.new_empty(steps, n + k + p, arrays.inputs.shape[2])
        tiles.recall(arrays, _samples(tiles, X), slots.numpy(), torch.get_num_threads())
        return slots[:, :, :m]
    slots = X.new_empty(steps, n + k + p, m)
    slots[:, :n] = X.flip(0)
    slots[:, n + k :] = chain.inputs.flip(0)
    rows, carries = slots.unbind(0), slots[:, n : n + k].unbind(0)
    carries[-1].copy_(chain.first_carry)
    for j in range(steps - 1, 0, -1):
        torch.mm(chain.into_carry, rows[j], out=carries[j - 1])
    return slots


class TiledSweep:
    """`Sweep`'s interface; all is done at once, and nothing is known unless all has converged."""

    def __init__(self, tiles: ModuleType, chain: Chain, solver: Picard, relative: bool) -> None:
        (steps, p, m), n = chain.inputs.shape, len(chain.into_drive)
        self.chain, self._tol = chain, solver.tol
        arrays = _arrays(tiles, chain)
        samples = arrays.inputs.shape[2]
        dtype = arrays.inputs.dtype
        slots = chain.inputs.new_empty(steps, n + len(arrays.first_carry) + p, samples)
        changes = chain.inputs.new_empty(n, samples)
        counts = torch.zeros(samples, dtype=torch.int64)
        drives = np.zeros(samples * dtype.itemsize // tiles.TILE_BYTES, dtype)
        negative = chain.finish.negative_slope if isinstance(chain.finish, Activation) else 1.0
        limits = tiles.Limits(
            dtype.type(solver.tol),
            relative,
            dtype.type(ROUNDING_UNITS * np.finfo(dtype).eps),
            min(solver.max_iter, _SLOW),
            dtype.type(negative),
        )
        outcome = tiles.Outcome(slots.numpy(), changes.numpy(), counts.numpy(), drives)
        self.converged = tiles.solve(arrays, limits, outcome, torch.get_num_threads())
        self.slots, self._changes, self._counts = slots[:, :, :m], changes[:, :m], counts[:m]
        self._unit = float(drives.max(initial=0.0)) if relative else 1.0

    def run(self) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, len(self.slots), self.slots

    def last_carry(self) -> Tensor:
        return self.chain.into_carry @ self.slots[-1]

    def solution(self) -> Solution:
        state = self.slots[-1, : len(self._changes)].T.clone()
        return Solution(state, self._counts, self._changes.T, self._tol * self._unit, True)


def why_not() -> str | None:
    """Why tiles cannot be had here, None if they can."""
    try:
        _compiled()
    except (ImportError, RuntimeError) as error:  # RuntimeError: nowhere to cache
        return f"{error} (pip install 'idl[fast]')"
    return None


@cache
def _compiled() -> ModuleType:
    from idl_core.kernels import tiled_chain

    return tiled_chain


def _tiles_for(chain: Chain) -> ModuleType | None:
    """The compiled functions if this chain is one for them."""
    features = sum(chain.into_carry.shape)
    known = isinstance(chain.finish, Tensor) or chain.finish.negative_slope is not None
    if chain.inputs.device.type != "cpu" or not known or features > _MOST_FEATURES:
        return None
    return _compiled() if why_not() is None else None


def _arrays(tiles: ModuleType, chain: Chain) -> Any:
    n = len(chain.into_drive)
    nothing = chain.inputs.new_empty(n, 0)
    of_state, of_rest = chain.into_carry[:, :n], chain.into_carry[:, n:]
    inner, outer = (nothing, chain.left) if chain.right is None else (chain.right, chain.left)
    slopes = chain.finish if isinstance(chain.finish, Tensor) else nothing[:0, :, None]
    added = nothing[:0, :, None] if chain.added is None else chain.added
    return tiles.TiledChain(
        *(_columns(tiles, M) for M in (inner, outer.T, chain.into_drive.T, of_state.T, of_rest.T)),
        *(_samples(tiles, x) for x in (chain.first_carry, chain.inputs, added, slopes)),
    )


def _columns(tiles: ModuleType, M: Tensor) -> np.ndarray:
    """M with columns of zeros up to a multiple of a tile's rows."""
    return F.pad(M.detach(), (0, -M.shape[1] % tiles.ROWS)).contiguous().numpy()


def _samples(tiles: ModuleType, x: Tensor) -> np.ndarray:
    """x with samples of zeros up to a whole number of tiles."""
    missing = -x.shape[-1] % (tiles.TILE_BYTES // x.itemsize)
    padded = F.pad(x.detach(), (0, missing)) if missing else x.detach()
    return padded.contiguous().numpy()
