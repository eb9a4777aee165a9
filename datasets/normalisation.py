"""Mean and standard deviation of a train split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_CHUNK_BYTES = 1 << 20  # converted at a time: a whole split in float64 would take 8 x its memory


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
    counts = np.zeros((channels, 256), dtype=np.int64)
    for chunk in _chunks(x):
        by_channel = chunk.reshape(len(chunk), channels, -1)
        for channel in range(channels):
            counts[channel] += np.bincount(by_channel[:, channel].ravel(), minlength=256)
    values = np.arange(256)
    n = int(counts[0].sum())
    means, stds = [], []
    for row in counts:
        total, squares = int((row * values).sum()), int((row * values**2).sum())
        means.append(total / n)
        # Python's integers do not overflow, while n * squares leaves int64 at 16 million bytes.
        stds.append((n * squares - total * total) ** 0.5 / n or 1.0)
    shape = (channels,) + (1,) * (x.dim() - 2)
    return torch.tensor(means).reshape(shape), torch.tensor(stds).reshape(shape)


def _of_floats(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = np.zeros(x.shape[1:])
    for chunk in _chunks(x):
        mean += chunk.sum(0, dtype=np.float64) / len(x)
    variance = np.zeros_like(mean)
    for chunk in _chunks(x):
        variance += np.square(chunk - mean).sum(0) / len(x)
    # Not `variance == 0`: rounding of the mean leaves a constant 0.1 a deviation of about 1e-17,
    # and a validation value of 0.2 would come out as 1e16. float32 may round to 0 as well.
    std = np.sqrt(variance).astype(np.float32)
    constant = (x.amax(0) == x.amin(0)).numpy() | (std == 0)
    std = np.where(constant, np.float32(1), std)
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std)


def _chunks(x: Tensor) -> Iterator[np.ndarray]:
    # NumPy's: torch wakes its threads for each chunk, which on busy cores costs 10 x what it saves.
    array = x.numpy()
    samples = max(1, _CHUNK_BYTES // (array[0].size * array.itemsize))
    for start in range(0, len(array), samples):
        yield array[start : start + samples]
