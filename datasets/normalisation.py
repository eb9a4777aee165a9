"""Mean and standard deviation of a train split, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CHUNK_BYTES = 1 << 20  # converted at a time: a whole split in float64 would take 8 x its memory


_ZERO, _ONE = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """How a model sees samples: inputs (x - mean) / std, regression targets (y - center) / scale.

    All in the units of the data (0..255 for pictures). It belongs to a model as much as its weights
    do: other data go through that of the data which the model was trained on.

    mean, std: broadcastable over one sample; std is nowhere 0
    center, scale: float64, broadcastable over one sample's targets; scale is nowhere 0
    """

    mean: Tensor
    std: Tensor
    center: Tensor = _ZERO
    scale: Tensor = _ONE

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Normalisation:
        """That of the samples of a train split; class labels are left as they are."""
        if y.is_floating_point():
            return cls(*mean_and_std(x), *mean_and_std(y))
        return cls(*mean_and_std(x))

    def inputs(self, x: Tensor) -> Tensor:
        """Samples as the model sees them, float32; they may be written over."""
        # Without sub_ and div_ a batch of pictures would be written to memory twice more.
        return x.to(self.mean.dtype).sub_(self.mean).div_(self.std).to(torch.float32)

    def targets(self, y: Tensor) -> Tensor:
        """Targets as the model is trained on them: scaled, float32; class labels as they are."""
        if not y.is_floating_point():
            return y
        return ((y - self.center) / self.scale).to(torch.float32)

    def own_units(self, outputs: Tensor) -> Tensor:
        """The reverse of `targets`, float64: scaled targets or predictions in the data's units."""
        return outputs * self.scale + self.center

    def to(self, device: torch.device | str) -> Normalisation:
        """The same on `device`."""
        return Normalisation(
            self.mean.to(device), self.std.to(device), self.center.to(device), self.scale.to(device)
        )


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of samples `x` (m, ...), in its units.

    uint8 pictures (m, c, h, w): one figure a channel, shape (c, 1, 1); uint8 of other shapes: one
    figure for all, each dimension 1. Floats (m, T, F), sequences: one figure a feature, over all
    samples and steps, shape (F,), as a model that goes from step to step must find the same
    units in each; of other shapes one figure a feature, shape `x.shape[1:]`. They are of the type
    of `x`, float32 for uint8. Where the deviation is 0 it is given as 1, so that dividing by it is
    always defined.
    """
    if x.dtype == torch.uint8:
        return _of_bytes(x)
    return _of_floats(x.flatten(0, 1) if x.dim() == 3 else x)


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
    kind = x.numpy().dtype
    std = np.sqrt(variance).astype(kind)
    constant = (x.amax(0) == x.amin(0)).numpy() | (std == 0)
    std = np.where(constant, kind.type(1), std)
    return torch.from_numpy(mean.astype(kind)), torch.from_numpy(std)


def _chunks(x: Tensor) -> Iterator[np.ndarray]:
    # NumPy's: torch wakes its threads for each chunk, which on busy cores costs 10 x what it saves.
    array = x.numpy()
    samples = max(1, _CHUNK_BYTES // (array[0].size * array.itemsize))
    for start in range(0, len(array), samples):
        yield array[start : start + samples]
