"""MᵀM and MᵀZ over samples that several processes share, the same to the last bit for any number.

Floating-point sums depend on their order. Here every summand is first rounded to a multiple of a
power of two so large that all partial sums are exact multiples of it too: addition is then
associative, and neither the number of processes nor the reduction's tree changes a bit (the
pre-rounding of Demmel and Nguyen, "Fast reproducible floating-point summation", ARITH 2013). The
power is chosen for each pair of columns, so that small columns lose no more digits than large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# Samples in one summand; fixed, for it decides how they are rounded.
CHUNK = 512

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Samples:
    """Rows are samples: data M (m, D) and targets (m, k); arrays or memory maps."""

    data: Array
    target: Array

    def take(self, rows: slice, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Data and targets of some samples, copied."""
        parts = (self.data[rows], self.target[rows])
        data, target = (torch.as_tensor(part.copy()).to(device, dtype) for part in parts)
        return data, target


def sharded_moments(
    samples: Samples, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """G = MᵀM (D, D), h = ZᵀM (k, D) and zz (k,), streamed over this process's samples, reduced.

    Every process of the default group must call it, with the same samples.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    firsts = range(0, len(samples.data), CHUNK)[rank::world]
    own = [slice(first, first + CHUNK) for first in firsts]
    width, count = samples.data.shape[1], samples.target.shape[1]
    largest = torch.zeros(width + count, device=device, dtype=dtype)
    for rows in own:
        data, target = samples.take(rows, device, dtype)
        both = torch.cat([data, target], 1).abs().amax(0)
        largest = torch.maximum(largest, both)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    size = _power_above(largest)
    d, z = size[:width], size[width:]
    m = float(_power_above(torch.tensor(float(len(samples.data)), dtype=dtype)))
    moments = (
        torch.zeros(width, width, device=device, dtype=dtype),
        torch.zeros(count, width, device=device, dtype=dtype),
        torch.zeros(count, device=device, dtype=dtype),
    )
    bounds = (d[:, None] * d * m, z[:, None] * d * m, z * z * m)
    for rows in own:
        data, target = samples.take(rows, device, dtype)
        parts = (data.T @ data, target.T @ data, (target * target).sum(0))
        for total, part, bound in zip(moments, parts, bounds, strict=True):
            total.add_(_rounded(part, bound))
    for total in moments:
        dist.all_reduce(total)
    return moments


def _power_above(value: Tensor) -> Tensor:
    """The power of two next above each magnitude; 1 for 0."""
    _, exponent = torch.frexp(value)
    return torch.ldexp(torch.ones_like(value), exponent)


def _rounded(part: Tensor, bound: Tensor) -> Tensor:
    """The summands to multiples of 2 eps · bound; `bound` is at least any partial sum.

    Adding and subtracting 3/2 of a power of two rounds to a multiple of its last place.
    """
    shift = 3 * bound
    return (part + shift) - shift
