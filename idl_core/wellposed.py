"""Well-posedness: keeping ‖A‖∞ ≤ κ, so that X = φ(AX + BU) exists, is unique and is found.

‖A‖∞ is the largest row sum of |A|. Three differentiable maps of a free matrix onto the ball
‖A‖∞ ≤ κ are here; `docs/well_posedness.md` has their measured accuracies. They compute in float32 at
least and round towards the inside, so that κ is kept in bfloat16 and float16 too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from idl_core.perron_frobenius import perron_frobenius_bound

__all__ = [
    "PROJECTIONS",
    "Projection",
    "low_rank_product",
    "norm_inf",
    "perron_frobenius_bound",
    "project_rows",
    "scale_globally",
    "scale_rows",
]

Projection = Callable[[Tensor, float], Tensor]


def norm_inf(A: Tensor) -> Tensor:
    """‖A‖∞, the largest row sum of magnitudes, of A (k, n): a 0-d tensor, in float32 at least."""
    working = torch.promote_types(A.dtype, torch.float32)
    return A.abs().sum(-1, dtype=working).amax() if A.numel() else A.new_zeros((), dtype=working)


def project_rows(A: Tensor, kappa: float) -> Tensor:
    """Euclidean projection of A (k, n) onto {‖A‖∞ ≤ kappa}, row by row onto the ℓ1 ball.

    Rows within the ball are unchanged; the others are soft-thresholded to row sum kappa. The
    threshold is exact, in a finite number of Newton steps, all rows together; the gradient is that
    of the projection. El Ghaoui et al., "Implicit deep learning", SIMODS 3 (2021), section 5; the
    threshold as in Condat, "Fast projection onto the simplex and the ℓ1 ball", Math. Program.
    158 (2016).
    """
    if not A.numel():
        return A
    working = _in_working_precision(A)
    with torch.no_grad():
        over = _scaled_sums(working)[:, 0] > _limit(A, kappa) * _SCALE
    goal = _inside(working, kappa)
    if not _may_look(A):
        threshold = _threshold_by_sorting(working.detach().abs(), goal)
        projected = _round_inwards(_thresholded(working, threshold, goal), A.dtype)
        return projected.where(over[:, None], A)
    rows = over.nonzero()[:, 0]
    if not len(rows):
        return A
    outside = working[rows]
    threshold = _threshold_by_newton(outside.detach().abs(), goal)
    inside = _round_inwards(_thresholded(outside, threshold, goal), A.dtype)
    return A.index_copy(0, rows, inside)


def _thresholded(A: Tensor, threshold: Tensor, kappa: float) -> Tensor:
    """sign(A) max(|A| - θ, 0), θ being `threshold` (k, 1) above each row's largest magnitude.

    On its support, the entries that stay, θ is affine in |A|: written so, automatic differentiation
    gives the Jacobian I - s sᵀ/|S| of the projection, s the signs and S the support.
    """
    size = A.abs()
    size = size - size.detach().amax(1, keepdim=True)
    support = (size.detach() > threshold).to(A.dtype)
    count = support.sum(1, keepdim=True).clamp(min=1)
    affine = ((size * support).sum(1, keepdim=True) - kappa) / count
    return (size - affine).clamp(min=0) * support * A.detach().sign()


def _threshold_by_newton(size: Tensor, kappa: float) -> Tensor:
    """θ (k, 1), counted from the largest entry of each row, such that max(size - θ, 0) sums up to
    kappa in each row of size (k, n) ≥ 0.

    Newton's method on a convex, decreasing, piecewise linear function, started left of its root:
    θ only climbs, and the method ends when rounding lets none climb further. Measured from the
    row's largest entry θ is at most 0, and small where it matters, so that large entries cost no
    accuracy.
    """
    size = size - size.amax(1, keepdim=True)
    theta = torch.full_like(size[:, :1], -kappa)
    while True:
        above = (size - theta).clamp_(min=0)
        excess = above.sum(1, keepdim=True) - kappa
        # sign + sum: several times faster on the CPU than counting booleans.
        count = above.sign_().sum(1, keepdim=True).clamp_(min=1)
        climbed = theta + excess / count
        if not bool((climbed > theta).any()):
            return theta
        theta = torch.maximum(theta, climbed)


def _threshold_by_sorting(size: Tensor, kappa: float) -> Tensor:
    """The same without looking at a number, as transforms of torch require it; slower."""
    size = size - size.amax(1, keepdim=True)
    descending = size.sort(1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, dtype=size.dtype, device=size.device)
    candidates = (descending.cumsum(1) - kappa) / count
    last = (descending > candidates).sum(1, keepdim=True).clamp(min=1) - 1
    return candidates.gather(1, last)


def scale_rows(A: Tensor, kappa: float) -> Tensor:
    """Scale each row of A (k, n) whose sum of magnitudes exceeds kappa down to kappa."""
    working = _in_working_precision(A)
    sums = _scaled_sums(working)
    over = sums > _limit(A, kappa) * _SCALE
    # A row within the ball is divided by nothing: a row of zeros would give 0/0 as its gradient.
    factor = _inside(working, kappa) / sums.where(over, 1.0)
    return _round_inwards(working * factor * _SCALE, A.dtype).where(over, A)


def scale_globally(A: Tensor, kappa: float) -> Tensor:
    """Scale all of A (k, n) by one factor so that its largest row sum is at most kappa."""
    if not A.numel():
        return A
    working = _in_working_precision(A)
    limit = _limit(A, kappa) * _SCALE
    if A.device.type == "cpu" and _may_look(A):
        with torch.no_grad():
            if float(_scaled_sums(working).amax()) <= limit:
                return A
        factor = _inside(working, kappa) / _scaled_sums(working).amax()
        return _round_inwards(working * factor * _SCALE, A.dtype)
    # To look would be to wait for the device, and to break a graph.
    norm = _scaled_sums(working).amax()
    over = norm > limit
    factor = _inside(working, kappa) / norm.where(over, 1.0)
    return _round_inwards(working * factor * _SCALE, A.dtype).where(over, A)


# Row sums are of entries times this, a power of two: of finite entries they are finite.
_SCALE = 2.0**-32


def _in_working_precision(A: Tensor) -> Tensor:
    return A.to(torch.promote_types(A.dtype, torch.float32))


def _scaled_sums(A: Tensor) -> Tensor:
    """Row sums (k, 1) of magnitudes of A (k, n), times `_SCALE`."""
    return (A.abs() * _SCALE).sum(1, keepdim=True)


def _limit(A: Tensor, kappa: float) -> float:
    """The sum above which a row is outside: kappa, or where A is in a half precision, whose
    results are rounded inwards, what is surely inside."""
    return kappa if A.dtype in (torch.float32, torch.float64) else kappa * (1 - _SURE * 2.0**-23)


_SURE = 4  # units in the last place of a working sum, beside those that its length adds


def _inside(working: Tensor, kappa: float) -> float:
    """What a row sum is brought down to: below kappa by what rounding may add up to."""
    units = _SURE + math.sqrt(working.shape[1])
    return kappa * (1 - 2 * units * torch.finfo(working.dtype).eps)


def _may_look(A: Tensor) -> bool:
    """Whether the path taken may depend on numbers in A: there are some, and nothing is traced."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return not A.is_meta and not isinstance(A, FakeTensor)


def _round_inwards(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in another dtype, no entry larger in magnitude than it was; the gradient is passed on."""
    if x.dtype == dtype:
        return x
    rounded = x.to(dtype)
    with torch.no_grad():
        nearest = rounded.detach()
        # Of a format with a sign bit the next smaller magnitude is the bits' number less 1.
        smaller = (nearest.view(torch.int16) - 1).view(dtype)
        target = smaller.where(nearest.to(x.dtype).abs() > x.abs(), nearest)
    return rounded - (nearest - target)


def low_rank_product(L: Tensor, R: Tensor) -> Tensor:
    """L Rᵀ (..., n, k) of factors with ‖L‖∞ ≤ κ and ‖Rᵀ‖∞ ≤ 1, for L (..., n, r), R (..., k, r).

    In a half precision it is rounded inwards, so that ‖L Rᵀ‖∞ ≤ κ holds for what is returned.
    """
    product = torch.matmul(_in_working_precision(L), _in_working_precision(R).mT)
    return _round_inwards(product, torch.promote_types(L.dtype, R.dtype))


PROJECTIONS: dict[str, Projection] = {
    "ball": project_rows,
    "row": scale_rows,
    "global": scale_globally,
}
