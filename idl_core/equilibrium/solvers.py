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

    def solve(
        self, step: Step, x0: Tensor, unit: Tensor | None = None, expected: int | None = None
    ) -> Solution:
        """Solve from x0 (m, n), in at most max_iter applications of the map.

        Args:
            unit: 0-d tensor; where given, the tolerance is `tol * unit`.
            expected: iterations that a like solve took, as a hint of where to measure first.
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

    def solve(
        self, step: Step, x0: Tensor, unit: Tensor | None = None, expected: int | None = None
    ) -> Solution:
        criterion = Criterion(self.tol, unit)
        x, count, _ = self.advance(step, x0, criterion, 0, self.max_iter)
        return criterion.solution(x, count)

    def advance(
        self,
        step: Step,
        x: Tensor,
        criterion: Criterion,
        count: int,
        max_iter: int,
        trial: int | None = None,
    ) -> tuple[Tensor, int, float]:
        """Iterate from x (m, n), after `count` maps, until the criterion holds or max_iter is met.

        Args:
            trial: a sample whose residual that many iterations have not even halved takes Picard
                steps from then on; where all do, give up.

        Returns:
            The newest point whose residual was measured, the number of maps applied so far, and
            the worst residual over its bound, at most 1 where the criterion holds.
        """
        history = _History(x, self.window)
        image, previous_image, previous_residual = (torch.empty_like(x) for _ in range(3))
        best = x.new_full(x.shape[:1], math.inf)
        start, plain = best, torch.zeros_like(best, dtype=torch.bool)
        for k in range(max_iter - count):
            image = step(x, image)
            count += 1
            residual = torch.sub(image, x, out=history.residual)
            worst = criterion.measure(residual.abs(), image, x, count)
            if worst <= 1 or count == max_iter:
                break
            size = criterion.residual
            if trial and k % trial == 0:
                plain = plain | (size > 0.5 * start)
                start = size
                if bool((plain | ~criterion.going).all()):
                    break
            x = image.clone()
            if k:
                slot = (k - 1) % self.window
                torch.sub(residual, previous_residual, out=history.df[slot])
                torch.sub(image, previous_image, out=history.dg[slot])
                grown = size > 2 * best
                best = torch.minimum(best, size)
                for weight, dg in zip(history.weights(grown | plain), history.dg, strict=True):
                    x.addcmul_(weight, dg, value=-1)
            previous_residual.copy_(residual)
            image, previous_image = previous_image, image
        return x, count, worst


class _History:
    """The last differences of residuals and images, and how they combine best.

    The residual itself sits beside its differences, so that one product of small matrices gives
    both sides of the normal equations of every sample.
    """

    def __init__(self, x: Tensor, window: int) -> None:
        m, n = x.shape
        rows = x.new_zeros(window + 1, m, n)  # slot-major: a slot is one contiguous block
        *self.df, self.residual = rows.unbind(0)
        self.dg = x.new_zeros(window, m, n).unbind(0)
        self._rows = rows.permute(1, 0, 2)
        self._columns = self._rows.mT
        self._gram = x.new_empty(m, window + 1, window + 1)
        self._normal, self._right = self._gram[:, :-1, :-1], self._gram[:, :-1, -1]
        self._diagonal = self._normal.diagonal(dim1=1, dim2=2)

    def weights(self, excluded: Tensor) -> tuple[Tensor, ...]:
        """argmin over w of |residual - sum_i w_i df_i|: for each slot (m, 1); 0 where excluded."""
        torch.bmm(self._rows, self._columns, out=self._gram)
        # The ridge is relative to each difference, whose sizes fall as the iteration converges. A
        # slot not yet filled is zero: the smallest number on its diagonal gives it weight zero.
        limits = torch.finfo(self._gram.dtype)
        self._diagonal.mul_(1 + 8 * limits.eps).add_(limits.tiny)
        weights, _ = torch.linalg.solve_ex(self._normal, self._right)
        weights = weights.nan_to_num_(0.0, 0.0, 0.0).T.contiguous().masked_fill_(excluded, 0.0)
        each: tuple[Tensor, ...] = weights.unsqueeze(2).unbind(0)
        return each


@dataclass(frozen=True)
class Picard:
    """Picard iteration x <- f(x), with the residual measured as seldom as is safe.

    A measurement gives the rate of convergence and so predicts the iteration at which the
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

    def solve(
        self, step: Step, x0: Tensor, unit: Tensor | None = None, expected: int | None = None
    ) -> Solution:
        criterion = Criterion(self.tol, unit)
        # x0, like what a step returns of its own, is never written to: two buffers take turns.
        own = spare, other = torch.empty_like(x0), torch.empty_like(x0)
        x = x0
        first = _FIRST_CHECK if expected is None or expected > _SLOW else expected
        count, stop = 0, min(first, self.max_iter)
        last_worst, last_count = math.nan, -1
        then = self.then
        while True:
            for _ in range(stop - count):
                previous, x = x, step(x, spare)
                spare, other = other, spare
            count = stop
            # What was before is needed no more: its buffer takes the change, if it is one of ours.
            ours = previous is own[0] or previous is own[1]
            change = torch.sub(x, previous, out=previous if ours else None).abs_()
            worst = criterion.measure(change, x, x, count)
            if worst <= 1 or count == self.max_iter:
                return criterion.solution(x, count)
            if last_count < 0:  # x0, or the step to it, was of the size of x itself
                last_worst = criterion.size / criterion.tol if criterion.tol else math.inf
            more = _iterations_left(worst, last_worst, count - last_count)
            last_worst, last_count = worst, count
            if then is not None and more > _SLOW and count > first:
                x, count, worst = then.advance(
                    step, x, criterion, count, self.max_iter, trial=_TRIAL
                )
                if worst <= 1 or count == self.max_iter:
                    return criterion.solution(x, count)
                then = None  # it did not pay: Picard iteration is safe, if slow
                last_worst, last_count, more = worst, count, _SLOW
            stop = min(count + min(more, count), self.max_iter)


# Iterations before the residual is first measured: most solves need 5 to 15.
_FIRST_CHECK = 4
# Predicted further Picard iterations from which Anderson acceleration costs less.
_SLOW = 16
# Iterations within which acceleration must show that it works.
_TRIAL = 20


def _iterations_left(worst: float, last_worst: float, apart: int) -> int:
    """Iterations until the residual, now `worst` tolerances, is within one, at the rate seen."""
    if not worst < last_worst:  # no progress
        return _SLOW + 1
    return max(1, math.ceil(math.log(worst) * apart / math.log(last_worst / worst)))


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

    def solve(
        self, step: Step, x0: Tensor, unit: Tensor | None = None, expected: int | None = None
    ) -> Solution:
        criterion = Criterion(self.tol, unit)
        x, spare = x0, torch.empty_like(x0)
        image = step(x, spare)
        residual = image - x
        m, n = x.shape
        # The inverse Jacobian of the residual is -I + sum_i left_i right_i^T.
        left, right = x.new_zeros(2, m, self.memory, n)
        count, used = 1, 0
        while True:
            worst = criterion.measure(residual.abs(), image, x, count)
            if worst <= 1 or count == self.max_iter:
                return criterion.solution(x, count)
            if used == self.memory:
                left.zero_(), right.zero_()
                used = 0
            direction = residual - _outer_sum(left, right, residual)
            x = x + direction
            image = step(x, spare)
            new_residual = image - x
            change = new_residual - residual
            residual = new_residual
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
