"""Well-posedness: keeping ‖A‖∞ ≤ κ, so that X = φ(AX + BU) exists, is unique and is found.

‖A‖∞ is the largest row sum of |A|. Three differentiable maps of a free matrix onto the ball
‖A‖∞ ≤ κ are here; `docs/well_posedness.md` has their measured accuracies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Projection = Callable[[Tensor, float], Tensor]


def norm_inf(A: Tensor) -> Tensor:
    """‖A‖∞, the largest row sum of magnitudes, of A (k, n): a 0-d tensor."""
    return A.abs().sum(-1).amax() if A.numel() else A.new_zeros(())


def project_rows(A: Tensor, kappa: float) -> Tensor:
    """Euclidean projection of A (k, n) onto {‖A‖∞ ≤ kappa}, row by row onto the ℓ1 ball.

    Rows within the ball are unchanged; the others are soft-thresholded to row sum kappa. Exact, in
    a finite number of Newton steps on the threshold, all rows together; the gradient is that of
    the projection. El Ghaoui et al., "Implicit deep learning", SIMODS 3 (2021), section 5; the
    threshold as in Condat, "Fast projection onto the simplex and the ℓ1 ball", Math. Program.
    158 (2016).
    """
    with torch.no_grad():
        sums = A.abs().sum(1)
    if not sums.numel() or float(sums.amax()) <= kappa:
        return A
    projected: Tensor = _RowsOntoL1Ball.apply(A, sums > kappa, kappa)
    return projected


class _RowsOntoL1Ball(torch.autograd.Function):
    """Soft-thresholds the rows marked `over` to an ℓ1 norm of kappa."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, over: Tensor, kappa: float) -> Tensor:
        rows = over.nonzero()[:, 0]
        outside = A[rows].to(torch.promote_types(A.dtype, torch.float32))
        inside = (_excess_over_threshold(outside.abs(), kappa) * outside.sign()).to(A.dtype)
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


def _excess_over_threshold(size: Tensor, kappa: float) -> Tensor:
    """max(size - θ, 0) with θ (k, 1) such that each row sums to kappa; size (k, n) ≥ 0.

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
            return (size - theta).clamp_(min=0)
        theta = torch.maximum(theta, climbed)


def scale_rows(A: Tensor, kappa: float) -> Tensor:
    """Scale each row of A (k, n) whose sum of magnitudes exceeds kappa down to kappa."""
    sums = A.abs().sum(1, keepdim=True)
    over = sums > kappa
    # A row within the ball is divided by nothing: a row of zeros would give 0/0 as its gradient.
    return A * torch.where(over, kappa / torch.where(over, sums, 1.0), 1.0)


def scale_globally(A: Tensor, kappa: float) -> Tensor:
    """Scale all of A (k, n) by one factor so that its largest row sum is at most kappa."""
    if A.device.type == "cpu" and not torch.compiler.is_compiling():
        with torch.no_grad():
            inside = float(norm_inf(A)) <= kappa
        return A if inside else A * (kappa / norm_inf(A))
    # To look would be to wait for the device, and to break a graph.
    norm = norm_inf(A)
    over = norm > kappa
    return A * torch.where(over, kappa / torch.where(over, norm, 1.0), 1.0)


PROJECTIONS: dict[str, Projection] = {
    "ball": project_rows,
    "row": scale_rows,
    "global": scale_globally,
}


def perron_frobenius_bound(A: Tensor, iterations: int = 100) -> float:
    """Upper bound on the Perron-Frobenius eigenvalue of |A| (n, n).

    Below 1 (for a non-expansive φ) it certifies well-posedness, also where ‖A‖∞ ≥ 1: El Ghaoui et
    al. (2021), theorem 2.8. By Collatz and Wielandt, max_i (|A|v)_i / v_i is such a bound for every
    positive v; power iteration tightens it.
    """
    size = A.detach().abs()
    if not size.numel():
        return 0.0
    v = torch.ones_like(size[:, 0])
    bound = float("inf")
    for _ in range(iterations):
        image = size @ v
        bound = min(bound, float((image / v).amax()))
        # The floor keeps v positive where |A| is reducible; any positive v gives a valid bound.
        v = (image / image.amax().clamp(min=torch.finfo(v.dtype).tiny)).clamp(min=1e-6)
    return bound
