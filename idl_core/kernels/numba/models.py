"""Passes through a whole model by tiles as the rest of the library sees them."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.criterion import say_unreachable
from idl_core.equilibrium.figured_solution import FiguredSolution
from idl_core.equilibrium.solution import Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba import ROWS, SMOOTH, TILE_BYTES, solves


class Weights(NamedTuple):
    """The matrices of a model, contiguous: A (n, n) is left or, of a low rank r, left rightᵀ."""

    left: Tensor
    right: Tensor | None
    B: Tensor
    C: Tensor
    D: Tensor | None


class Pass(NamedTuple):
    """What a pass has found.

    states: X or, backwards, V (m, n)
    inner: of a low rank, the product of X and right or of V and left, samples last (r, m)
    driven: tiles of B U and D U, where the slopes of φ are to be found from them
    """

    states: Tensor
    inner: Tensor | None
    driven: Tensor | None
    solution: Solution


def suits(
    activation: Activation,
    solvers: tuple[Solver, Solver],
    U: Tensor,
    X0: Tensor | None,
    of: Weights,
) -> bool:
    """Whether tiles can take a model for a batch U (m, p), from X0 (m, n) or φ(B U)."""
    (m, p), q, n = U.shape, of.C.shape[0], of.C.shape[-1]
    r = n if of.right is None else of.right.shape[-1]
    smooth = activation.name in SMOOTH and (
        U.dtype is torch.float32 or (of.right is None and _are_few(m, n))
    )
    buffers = 9 * n * TILE_BYTES  # states, what drives them, slopes and the history
    expected = (
        (U, (m, p)),
        (X0, (m, n)),
        (of.left, (n, r or n)),
        (of.right, (n, r)),
        (of.B, (n, p)),
        (of.C, (q, n)),
        (of.D, (q, p)),
    )
    return (
        isinstance(solvers[0], Picard)
        and isinstance(solvers[1], Picard)
        and buffers <= solves.MOST_BYTES_OF_TILE
        and solves.suits(activation, n * r, expected, smooth=smooth)
    )


def forward(
    of: Weights, U: Tensor, X0: Tensor | None, activation: Activation, solver: Picard
) -> tuple[Pass, Tensor]:
    """Solve for a contiguous batch U (m, p), from X0 (m, n) or φ(B U).

    Returns:
        the pass, and Ŷ (m, q).
    """
    m, _, n, q, r, _ = sizes = _sizes(of, U)
    lanes = TILE_BYTES // U.itemsize
    driven = U.new_empty(-(-m // lanes), _filled(n) + _filled(q), lanes)
    X, figures, Y = U.new_empty(m, n), U.new_empty(3, m), U.new_empty(m, q)
    inner = U.new_empty(r, m) if r else None
    start = None if X0 is None else X0.contiguous()
    how = _programs(m, n, r).forward(
        _addresses(of),
        _addresses((U, start)),
        _addresses((driven, X, inner, figures, Y)),
        sizes,
        solves.limits(solver, solves.phi(activation), U.dtype, relative=False),
        torch.get_num_threads(),
    )
    if how == _WITHIN_ROUNDING:
        say_unreachable(solver.tol, U.dtype, float(X.abs().max()))
    kept = driven if activation.name in SMOOTH and activation.dphi_of_output is None else None
    return Pass(X, inner, kept, FiguredSolution(X, figures, solver.tol, all_converged=how > 0)), Y


def backward(
    of: Weights, U: Tensor, known: Pass, grad: Tensor, activation: Activation, solver: Picard
) -> tuple[Pass, Weights]:
    """Solve V = φ'(X) ∘ (V A + grad C) for the gradient of Ŷ (m, q).

    Args:
        known: the forward pass.

    Returns:
        the pass, and the gradients of the matrices.
    """
    m, _, n, q, r, _ = sizes = _sizes(of, U)
    grad = grad.contiguous()
    V, rows, figures = U.new_empty(n + q, m), U.new_empty(m, n), U.new_empty(3, m)
    inner, gradients = U.new_empty(r, m) if r else None, _room_for_gradients(of)
    how, tol = _programs(m, n, r).backward(
        _addresses(of),
        _addresses((U, known.states, known.inner, grad, known.driven)),
        _addresses((V, rows, inner, figures)),
        _addresses(gradients),
        sizes,
        solves.limits(solver, (-1, 1.0), U.dtype, relative=True),
        solves.limits(solver, solves.phi(activation), U.dtype, relative=True).phi,
        torch.get_num_threads(),
    )
    solution = FiguredSolution(rows, figures, tol, all_converged=how > 0)
    return Pass(rows, inner, None, solution), _as_matrices(gradients)


# Samples up to which programs for single samples are faster than those for tiles, which compute all
# lanes of one: while A is in the second-level cache, and beyond.
_FEW, _FEW_OF_LARGE = 4, 2


def _programs(m: int, n: int, r: int) -> ModuleType:
    """What solves for m samples."""
    modules = solves.modules()
    return modules.samples if not r and _are_few(m, n) else modules.model


def _are_few(m: int, n: int) -> bool:
    return m <= (_FEW if n * n <= 1 << 18 else _FEW_OF_LARGE)


_WITHIN_ROUNDING = 2  # how a solve of compiled functions has ended; 0: it has failed


def _sizes(of: Weights, U: Tensor) -> tuple[int, int, int, int, int, int]:
    (m, p), (q, n) = U.shape, of.C.shape
    return m, p, n, q, 0 if of.right is None else of.right.shape[1], 0 if of.D is None else q


def _room_for_gradients(of: Weights) -> Weights:
    """Those of the factors of A transposed."""
    left, right = of.left, of.right
    if right is not None:
        left, right = left.new_empty(left.shape[::-1]), right.new_empty(right.shape[::-1])
    else:
        left = torch.empty_like(left)
    D = None if of.D is None else torch.empty_like(of.D)
    return Weights(left, right, torch.empty_like(of.B), torch.empty_like(of.C), D)


def _as_matrices(room: Weights) -> Weights:
    if room.right is None:
        return room
    return room._replace(left=room.left.T, right=room.right.T)


def _addresses(tensors: tuple[Tensor | None, ...]) -> tuple[int, ...]:
    """Of tensors that a caller keeps for as long as they are used."""
    return tuple([0 if x is None else x.data_ptr() for x in tensors])


def _filled(n: int) -> int:
    return -(-n // ROWS) * ROWS
