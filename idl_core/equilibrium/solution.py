"""What a fixed-point solve returns: the value and, for each sample, how its solve ended."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from idl_core.equilibrium.late_warnings import warn_when_copied

# A map evaluated in floating point moves by a few units in the last place at its own fixed point.
ROUNDING_UNITS = 4.0


class ImplicitFunctionWarning(RuntimeWarning):
    """A solve did not reach its tolerance, or could not for want of precision."""


class SolveStats(NamedTuple):
    """How the solves of m samples ended.

    Attributes:
        residual: (m,) max-norm of f(x) - x, the quantity that the tolerance bounds.
        bound: (m,) on the residual: the tolerance or, where larger, the rounding error.
        iterations: (m,) applications of the map; whole numbers, of any dtype.
    """

    residual: Tensor
    bound: Tensor
    iterations: Tensor

    @property
    def converged(self) -> Tensor:
        """(m,) bool: the residual is finite and within its bound."""
        return (self.residual <= self.bound) & self.residual.isfinite()

    def where(self, which: Tensor, others: SolveStats) -> SolveStats:
        """These stats for the samples marked in `which` (m,), `others` for the rest."""
        return SolveStats(*(a.where(which, b) for a, b in zip(self, others, strict=True)))

    def worst_step(self) -> SolveStats:
        """Of fields (steps, m), for each sample: the largest residual, of those above their bound
        if there are such, the bound on it, and the most iterations."""
        failed = ~(self.residual <= self.bound)
        counted = self.residual.where(failed | ~failed.any(0), -1.0)
        worst = counted.argmax(0, keepdim=True)  # what is not a number counts as the largest
        return SolveStats(
            self.residual.gather(0, worst)[0],
            self.bound.gather(0, worst)[0],
            self.iterations.amax(0),
        )


@dataclass(eq=False)
class LastChange:
    """What the last iteration changed, from which `SolveStats` are computed when they are read: a
    training step that reads none pays for none.

    Attributes:
        change: (m, n) |f(x) - x|.
        point: (m, n) the solution, whose size decides what rounding allows.
        tol: bound on `change`.
        iterations: one number for the batch, or (m,).
    """

    change: Tensor
    point: Tensor
    tol: float
    iterations: int | Tensor

    def stats(self) -> SolveStats:
        """Residual, bound and iterations of each sample."""
        residual, iterations = row_max(self.change), self.iterations
        if isinstance(iterations, int):
            iterations = torch.full(residual.shape, iterations, device=residual.device)
        return SolveStats(residual, bound(self.point, self.tol), iterations)


@dataclass(eq=False)
class Solution:
    """Outcome of a fixed-point solve over a batch of m samples.

    Attributes:
        value: the fixed point, shaped as the initial guess.
        measured: `SolveStats`, or what they are read from: a `LastChange`, or their fields as one
            tensor (3, m). They may be on a device that has not finished: reading waits for it.
        tol: the bound on the residual that was asked for.
        relative: tol is in units of a right-hand side, as an adjoint's is.
        known_converged: whether every sample is within its bound; None where only the stats tell.
    """

    value: Tensor
    measured: SolveStats | LastChange | Tensor
    tol: float
    relative: bool = False
    known_converged: bool | None = None

    @property
    def stats(self) -> SolveStats:
        """Residual, bound and iterations of each sample."""
        measured = self.measured
        if isinstance(measured, LastChange):
            self.measured = measured = measured.stats()
        elif isinstance(measured, Tensor):
            self.measured = measured = SolveStats(*measured.unbind())
        return measured

    @property
    def iterations(self) -> Tensor:
        """(m,) int64, applications of the map to each sample."""
        return self.stats.iterations.long()

    @property
    def residual(self) -> Tensor:
        """(m,) max-norm of f(x) - x, the quantity that the tolerance bounds."""
        return self.stats.residual

    @property
    def converged(self) -> Tensor:
        """(m,) bool: the residual is within the tolerance or, where larger, the rounding error."""
        return self.stats.converged

    @property
    def all_converged(self) -> bool:
        """Whether every sample is within its bound."""
        if self.known_converged is None:
            # Looked up each time: a replayed CUDA graph writes others to the same stats.
            return bool(self.converged.all())
        return self.known_converged

    @property
    def common_iterations(self) -> int | None:
        """The iterations of all samples, where they are one number that no device is asked for."""
        measured = self.measured
        if isinstance(measured, LastChange) and isinstance(measured.iterations, int):
            return measured.iterations
        return None

    def with_value(self, value: Tensor) -> Solution:
        """The same outcome for a reshaped or differentiable value."""
        return replace(self, value=value)

    def warn_unless_converged(self, what: str) -> None:
        """Emit one `ImplicitFunctionWarning` if any sample is short of its tolerance.

        Where only a GPU knows that, its stats are copied while it goes on, and the warning is
        emitted with a later solve or by `flush_warnings`.
        """
        if self.known_converged is None and self.stats.residual.is_cuda:
            tol, relative = self.tol, self.relative  # not self, whose value is large
            warn_when_copied(
                torch.stack([one.to(self.residual.dtype) for one in self.stats]),
                lambda copy: Solution(copy, SolveStats(*copy), tol, relative).warn_now(what),
            )
        else:
            self.warn_now(what)

    def warn_now(self, what: str) -> None:
        """The same, at once: where it has to, it waits for the device."""
        seen_by_solver = self.known_converged is not None
        if self.all_converged:
            if not (seen_by_solver or self.relative):
                self.warn_where_rounding_decides()
            return
        failed = ~self.converged
        if not failed.any():
            return
        warnings.warn(
            f"{what} did not converge for {int(failed.sum())} of {failed.numel()} samples: "
            f"residual {float(self.residual.max()):.3e} "
            f"after {int(self.iterations.max())} iterations",
            ImplicitFunctionWarning,
            stacklevel=4,
        )

    def warn_where_rounding_decides(self) -> None:
        """Emit a warning where the number format, not the tolerance, ended a converged solve."""
        residual, bounds, _ = self.stats
        # Of a float32 tolerance the last digit does not count.
        if self.all_converged and bool((residual > self.tol * (1 + 1e-6)).any()):
            rounding = ROUNDING_UNITS * torch.finfo(residual.dtype).eps
            warn_unreachable(self.tol, residual.dtype, float(bounds.max()) / rounding)


@dataclass
class LastSolution:
    """What the most recent solve of a model did; `adjoint` is None until backward has run."""

    forward: Solution | None = None
    adjoint: Solution | None = None


def bound(x: Tensor, tol: float) -> Tensor:
    """(m,) bound on the residual of each row of x (m, n): tol or, where larger, rounding error."""
    return row_max(x.abs()).mul_(ROUNDING_UNITS * torch.finfo(x.dtype).eps).clamp_(min=tol)


def row_max(magnitude: Tensor) -> Tensor:
    """Largest entry of each row of a matrix of non-negative entries, 0 for rows without any."""
    if not magnitude.numel():
        return magnitude.new_zeros(magnitude.shape[0])
    return magnitude.amax(1)


_SAME_SIZE = 10.0  # times the tolerance
_unreachable: set[tuple[float, torch.dtype]] = set()


def warn_unreachable(tol: float, dtype: torch.dtype, size: float) -> None:
    """Warn, once for each tolerance and dtype, that rounding and not tol ends the solve of states
    as large as `size`.

    A residual of the tolerance's own size is nothing to warn of: the default of 3e-6 is reached in
    float32 while |X| is below 6, and the states of most trained models are a little larger.
    """
    rounding = ROUNDING_UNITS * torch.finfo(dtype).eps * size
    if (tol, dtype) in _unreachable or rounding <= _SAME_SIZE * tol:
        return
    _unreachable.add((tol, dtype))
    warnings.warn(
        f"tol={tol:g} is finer than {dtype} resolves at this size of X "
        f"(max|X| = {size:.3g}): solved to rounding error, about {rounding:.0e}. "
        "float64 resolves more.",
        ImplicitFunctionWarning,
        stacklevel=4,
    )
