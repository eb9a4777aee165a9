"""The fixed-point solvers: Picard iteration, Anderson acceleration, limited-memory Broyden.

A solver is a small frozen object of settings; `solve(step, x0)` works on a batch of vectors
(m, n). `step(x, out)` returns f(x) and may write it into `out`, a spare tensor shaped as x (never x
itself), which lets a caller iterate in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from idl_core.equilibrium.criterion import Criterion
from idl_core.equilibrium.solution import Solution

Step = Callable[[Tensor, Tensor], Tensor]


class Solver(Protocol):
    """Anything with a tolerance and a bound on iterations that solves x = f(x)."""

    @property
    def tol(self) -> float: ...

    @property
    def max_iter(self) -> int: ...

    def solve(self, step: Step, x0: Tensor, unit: Tensor | None = None) -> Solution:
        """Solve from x0 (m, n), in at most max_iter applications of the map.

        Args:
            unit: 0-d tensor; where given, the tolerance is `tol * unit`.
        """
        ...


def _check_settings(tol: float, max_iter: int) -> None:
    if not tol > 0:
        raise ValueError(f"tol must be positive, not {tol!r}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, not {max_iter!r}")


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration (type II), with the least-squares problem solved for each sample.

    Walker and Ni, "Anderson acceleration for fixed-point iterations", SINUM 49 (2011), in the
    form with differences. A sample whose residual has grown takes a plain Picard step, which is
    safe for a contraction.

    Args:
        window: number of earlier differences that are combined.
        tol: bound on the max-norm residual of each sample.
        max_iter: bound on applications of the map.
    """

    window: int = 5
    tol: float = 3e-6
    max_iter: int = 300

    def __post_init__(self) -> None:
        _check_settings(self.tol, self.max_iter)
        if self.window < 1:
            raise ValueError(f"window must be at least 1, not {self.window!r}")

    def solve(self, step: Step, x0: Tensor, unit: Tensor | None = None) -> Solution:
        criterion = Criterion(self.tol, unit)
        x, count = self.continue_from(step, x0, criterion, self.max_iter)
        return criterion.solution(x, count)

    def continue_from(
        self, step: Step, x: Tensor, criterion: Criterion, max_iter: int
    ) -> tuple[Tensor, int]:
        """Iterate from x until the criterion holds: the point it holds at, and the count."""
        m, n = x.shape
        window = self.window
        # Slot-major: a slot is one contiguous block. The last slot of df holds the residual itself,
        # so that one product gives both sides of the normal equations.
        df = x.new_zeros(window + 1, m, n)
        dg = x.new_zeros(window, m, n)
        residual, image, previous_image = (torch.empty_like(x) for _ in range(3))
        ridge = 8 * torch.finfo(x.dtype).eps * torch.eye(window, dtype=x.dtype, device=x.device)
        best = x.new_full((m,), math.inf)
        for k in range(max_iter):
            image = step(x, image)
            if k:
                torch.sub(image, previous_image, out=dg[(k - 1) % window])
                slot = df[(k - 1) % window]
                slot.copy_(residual).neg_()
            torch.sub(image, x, out=residual)
            if k:
                slot.add_(residual)
            worst = criterion.measure(image, x)
            if worst <= 1 or not math.isfinite(worst) or k == max_iter - 1:
                break
            df[window].copy_(residual)
            weights = self._weights(df, ridge)
            grown = criterion.residual > 2 * best
            weights.masked_fill_(grown[:, None], 0.0)
            best = torch.minimum(best, criterion.residual)
            x = image.clone()
            for i in range(min(k, window)):
                x.addcmul_(weights[:, i, None], dg[i], value=-1)
            image, previous_image = previous_image, image
        return x, k + 1

    def _weights(self, df: Tensor, ridge: Tensor) -> Tensor:
        """argmin over w of |residual - sum_i w_i df_i| for each sample: (m, window)."""
        rows = df.permute(1, 0, 2)
        gram = rows @ rows.mT
        # Differences shrink as the iteration converges; scaled to unit length they stay comparable.
        # A slot not yet filled is zero and gets weight zero.
        tiny = torch.finfo(df.dtype).tiny
        scale = gram.diagonal(dim1=1, dim2=2)[:, :-1].clamp(min=tiny).rsqrt()
        normal = gram[:, :-1, :-1] * scale[:, :, None] * scale[:, None, :]
        right = gram[:, :-1, -1] * scale
        normal.diagonal(dim1=1, dim2=2).clamp_(min=1.0)
        weights, _ = torch.linalg.solve_ex(normal + ridge, right)
        return weights.mul_(scale).nan_to_num_(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Picard:
    """Picard iteration x <- f(x), with the residual measured as seldom as is safe.

    Two measurements give the rate of convergence and so predict the iteration at which the
    tolerance is met; it is measured again only there. What is returned is the newest iterate.

    Args:
        tol: bound on the max-norm residual of each sample.
        max_iter: bound on applications of the map.
        then: where the predicted number of further iterations makes it worthwhile, hand over to
            this Anderson acceleration (its window is used; tol and max_iter stay these).
    """

    tol: float = 3e-6
    max_iter: int = 300
    then: Anderson | None = None

    def __post_init__(self) -> None:
        _check_settings(self.tol, self.max_iter)

    def solve(self, step: Step, x0: Tensor, unit: Tensor | None = None) -> Solution:
        criterion = Criterion(self.tol, unit)
        x, spare = x0, torch.empty_like(x0)
        first = True
        count, stop = 0, min(_FIRST_CHECK, self.max_iter)
        last_worst, last_count = math.nan, 0
        while True:
            for _ in range(stop - count):
                image = step(x, spare)
                # x0 belongs to the caller and is never written to.
                previous, x, spare = x, image, (torch.empty_like(x) if first else x)
                first = False
            count = stop
            worst = criterion.measure(x, previous)
            if worst <= 1 or not math.isfinite(worst) or count == self.max_iter:
                break
            more = _iterations_left(worst, last_worst, count - last_count)
            last_worst, last_count = worst, count
            if self.then is not None and more > _SLOW and count > _FIRST_CHECK:
                x, more = self.then.continue_from(step, x, criterion, self.max_iter - count)
                return criterion.solution(x, count + more)
            stop = min(count + min(more, count), self.max_iter)
        return criterion.solution(x, count)


# Iterations before the residual is first measured: most solves need 5 to 15.
_FIRST_CHECK = 4
# Predicted further Picard iterations from which Anderson acceleration costs less.
_SLOW = 16


def _iterations_left(worst: float, last_worst: float, apart: int) -> int:
    """Iterations until the residual, now `worst` tolerances, is within one, at the rate seen."""
    if not worst < last_worst:  # nothing to compare with yet, or no progress
        return 1 if math.isnan(last_worst) else _SLOW + 1
    rate = math.log(last_worst / worst) / apart
    return max(1, math.ceil(math.log(worst) / rate))


@dataclass(frozen=True)
class Broyden:
    """Limited-memory good Broyden method on f(x) - x = 0, for each sample on its own.

    Broyden, "A class of methods for solving nonlinear simultaneous equations", Math. Comp. 19
    (1965); the inverse Jacobian is -I plus a sum of outer products, as in Kelley, "Solving
    Nonlinear Equations with Newton's Method" (2003). It also finds fixed points of maps that do
    not contract.

    Args:
        memory: rank-one updates kept; when full, the method restarts from the Picard direction.
        tol: bound on the max-norm residual of each sample.
        max_iter: bound on applications of the map.
    """

    memory: int = 20
    tol: float = 3e-6
    max_iter: int = 300

    def __post_init__(self) -> None:
        _check_settings(self.tol, self.max_iter)
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, not {self.memory!r}")

    def solve(self, step: Step, x0: Tensor, unit: Tensor | None = None) -> Solution:
        criterion = Criterion(self.tol, unit)
        x, spare = x0, torch.empty_like(x0)
        image = step(x, spare)
        residual = image - x
        m, n = x.shape
        # The inverse Jacobian of the residual is -I + sum_i left_i right_i^T.
        left, right = x.new_zeros(2, m, self.memory, n)
        count, used = 1, 0
        while True:
            worst = criterion.measure(image, x)
            if worst <= 1 or not math.isfinite(worst) or count == self.max_iter:
                return criterion.solution(x, count)
            if used == self.memory:
                left.zero_(), right.zero_()
                used = 0
            direction = residual - _outer_sum(left, right, residual)
            x = x + direction
            image = step(x, spare)
            change = image - x - residual
            residual = residual + change
            # Sherman-Morrison: H <- H + (s - H y) s^T H / (s^T H y)
            mapped = _outer_sum(left, right, change) - change
            row = _outer_sum(right, left, direction) - direction
            curvature = (direction * mapped).sum(1, keepdim=True)
            safe = curvature.abs() > torch.finfo(x.dtype).tiny
            left[:, used] = torch.where(safe, (direction - mapped) / curvature, 0.0)
            right[:, used] = row
            count, used = count + 1, used + 1


def _outer_sum(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """(sum_i left_i right_i^T) vector for each sample: (m, r, n), (m, r, n), (m, n) -> (m, n)."""
    return ((right @ vector[:, :, None]).mT @ left)[:, 0]
