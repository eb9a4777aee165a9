"""Well-posedness: keeping ‖A‖∞ ≤ κ, so that X = φ(AX + BU) exists, is unique and is found.

‖A‖∞ is the largest row sum of |A|. Three differentiable maps of a free matrix onto the ball
‖A‖∞ ≤ κ are here; `docs/well_posedness.md` has their measured accuracies. They compute in float32
at least and round towards the inside, so that κ is kept in bfloat16 and float16 too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

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
        sums, scale = _row_sums(working)
        over = sums[:, 0] > _limit(A, kappa) * scale
    if not _may_look(A):
        projected = _thresholded(working, _inside(working, kappa))
        return _round_inwards(projected, A.dtype).where(over[:, None], A)
    if not bool(over.any()):
        return A
    onto: Tensor = _RowsOntoL1Ball.apply(A, over, _inside(working, kappa))
    return onto


class _RowsOntoL1Ball(torch.autograd.Function):
    """Soft-thresholds the rows marked `over` to an ℓ1 norm of kappa."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, over: Tensor, kappa: float) -> Tensor:
        rows = over.nonzero()[:, 0]
        outside = _in_working_precision(A[rows])
        size = outside.abs()
        size -= size.amax(1, keepdim=True)
        inside = (size - _threshold_by_newton(size, kappa)).clamp_(min=0) * outside.sign()
        inside = _round_inwards(inside, A.dtype)
        ctx.save_for_backward(rows, inside.sign())
        return A.index_copy(0, rows, inside)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # On the support S with signs s the projection is affine: its Jacobian is I - s sᵀ/|S|,
        # constant, so that differentiating this once more is right as it stands.
        rows, sign = ctx.saved_tensors
        part = grad[rows]
        support = sign.abs()
        mean = (part * sign).sum(1, keepdim=True) / support.sum(1, keepdim=True).clamp(min=1)
        return grad.index_copy(0, rows, (part * support).addcmul_(sign, mean, value=-1)), None, None


def _thresholded(A: Tensor, kappa: float) -> Tensor:
    """Each row of A (k, n) soft-thresholded to an ℓ1 norm of kappa, in operations of torch alone,
    without looking at a number: what transforms and compilers can follow.

    On its support, the entries that stay, the threshold is affine in |A|.
    """
    size = A.abs()
    size = size - size.detach().amax(1, keepdim=True)
    threshold = _threshold_by_sorting(size.detach(), kappa)
    support = (size.detach() > threshold).to(A.dtype)
    count = support.sum(1, keepdim=True).clamp(min=1)
    affine = ((size * support).sum(1, keepdim=True) - kappa) / count
    return (size - affine).clamp(min=0) * support * A.detach().sign()


def _threshold_by_newton(size: Tensor, kappa: float) -> Tensor:
    """θ (k, 1) such that max(size - θ, 0) sums up to kappa in each row of size (k, n), magnitudes
    less the largest of their row.

    Newton's method on a convex, decreasing, piecewise linear function, started left of its root:
    θ only climbs, and the method ends when rounding lets none climb further. Measured from the
    row's largest entry θ is at most 0, and small where it matters, so that large entries cost no
    accuracy.
    """
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
    """The same without looking at a number; slower on a CPU."""
    descending = size.sort(1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, dtype=size.dtype, device=size.device)
    candidates = (descending.cumsum(1) - kappa) / count
    last = (descending > candidates).sum(1, keepdim=True).clamp(min=1) - 1
    return candidates.gather(1, last)


def scale_rows(A: Tensor, kappa: float) -> Tensor:
    """Scale each row of A (k, n) whose sum of magnitudes exceeds kappa down to kappa."""
    working = _in_working_precision(A)
    sums, scale = _row_sums(working)
    over = sums > _limit(A, kappa) * scale
    # A row within the ball is divided by nothing: a row of zeros would give 0/0 as its gradient.
    factor = (_inside(working, kappa) / sums.where(over, 1.0)).where(over, 1 / scale)
    return _round_inwards(_scaled(working * factor, scale), A.dtype)


def scale_globally(A: Tensor, kappa: float) -> Tensor:
    """Scale all of A (k, n) by one factor so that its largest row sum is at most kappa."""
    if not A.numel():
        return A
    working = _in_working_precision(A)
    if A.device.type == "cpu" and _may_look(A):
        with torch.no_grad():
            sums, scale = _row_sums(working)
            if float(sums.amax()) <= _limit(A, kappa) * scale:
                return A
        factor = _inside(working, kappa) / _row_sums(working)[0].amax()
        return _round_inwards(_scaled(working * factor, scale), A.dtype)
    # To look would be to wait for the device, and to break a graph.
    sums, scale = _row_sums(working)
    norm = sums.amax()
    over = norm > _limit(A, kappa) * scale
    factor = (_inside(working, kappa) / norm.where(over, 1.0)).where(over, 1 / scale)
    return _round_inwards(_scaled(working * factor, scale), A.dtype)


def _in_working_precision(A: Tensor) -> Tensor:
    return A.to(torch.promote_types(A.dtype, torch.float32))


def _row_sums(A: Tensor) -> tuple[Tensor, float]:
    """Row sums (k, 1) of magnitudes of A (k, n), times a power of two, and that: 1, or smaller
    where sums of finite entries would overflow or it cannot be seen whether they do."""
    if A.device.type == "cpu" and _may_look(A):
        sums = A.abs().sum(1, keepdim=True)
        if not math.isinf(float(sums.detach().sum())):
            return sums, 1.0
    scale = 2.0**-32
    return (A.abs() * scale).sum(1, keepdim=True), scale


def _scaled(A: Tensor, scale: float) -> Tensor:
    return A if scale == 1 else A * scale


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
