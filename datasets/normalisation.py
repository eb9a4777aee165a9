"""Mean and standard deviation of a train split."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_BYTES = (
    1 << 24
)  # what is converted at a time: the whole split in float64 would be 8 x larger


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of samples `x` (m, ...), float32, in its units.

    uint8 pictures (m, c, h, w): one figure a channel, shape (c, 1, 1); uint8 of other shapes: one
    figure for all, each dimension 1. float32: one figure a feature, shape `x.shape[1:]`. Where the
    deviation is 0 it is given as 1, so that dividing by it is always defined.
    """
    if x.dtype == torch.uint8:
        return _of_bytes(x)
    return _of_floats(x)


def _of_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    # Counting how often each of the 256 values occurs makes the sums exact integers.
    channels = x.shape[1] if x.dim() == 4 else 1
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for chunk in _chunks(x):
        by_channel = chunk.reshape(chunk.shape[0], channels, -1)
        for channel in range(channels):
            counts[channel] += torch.bincount(by_channel[:, channel].flatten(), minlength=256)
    values = torch.arange(256)
    n = int(counts[0].sum())
    means, stds = [], []
    for row in counts:
        total, squares = int((row * values).sum()), int((row * values**2).sum())
        means.append(total / n)
        # Python's integers do not overflow: n * squares exceeds int64 from 400,000 pictures on.
        stds.append((n * squares - total * total) ** 0.5 / n or 1.0)
    shape = (channels,) + (1,) * (x.dim() - 2)
    return torch.tensor(means).reshape(shape), torch.tensor(stds).reshape(shape)


def _of_floats(x: Tensor) -> tuple[Tensor, Tensor]:
    m = x.shape[0]
    mean = torch.zeros(x.shape[1:], dtype=torch.float64)
    for chunk in _chunks(x):
        mean += chunk.sum(0, dtype=torch.float64) / m
    variance = torch.zeros_like(mean)
    for chunk in _chunks(x):
        variance += (chunk.to(torch.float64) - mean).square_().sum(0) / m
    # Not `variance == 0`: rounding of the mean leaves a constant 0.1 a deviation of about 1e-17,
    # and a validation value of 0.2 would come out as 1e16. float32 may round to 0 as well.
    std = variance.sqrt().to(torch.float32)
    constant = (x.amax(0) == x.amin(0)) | (std == 0)
    return mean.to(torch.float32), torch.where(constant, 1.0, std)


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    sample_bytes = x[0].numel() * x.element_size()
    return x.split(max(1, _CHUNK_BYTES // sample_bytes))
