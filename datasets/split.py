"""The samples of one split, and the batches cut from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """The samples of one split, decoded, on one device; none of its tensors is written to.

    x: uint8 (m, *input_shape) for pictures (values 0..255, channels first), else float32
    y: int64 (m,) class labels, or float32 (m, q) regression targets
    mean, std: the normalisation (x - mean) / std, in the units of `x` (so 0..255 for pictures),
        broadcastable over one sample, taken from the train split; std is nowhere 0

    A split of another kind (windows of a series, of a text) needs `__len__`, `batch` and `to`.
    """

    x: Tensor
    y: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return self.x.shape[0]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, *input_shape) in float32, normalised, and targets of the samples at `index`.

        index: int64 (b,), on the device of the split; a sample may occur more than once.
        """
        # Gather first, then convert: a quarter of the bytes to move for pictures. What was gathered
        # is new memory, so that the rest can be in place without touching the split.
        inputs = self.x.index_select(0, index).to(torch.float32)
        return inputs.sub_(self.mean).div_(self.std), self.y.index_select(0, index)

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`; the very tensors where they are there already."""
        return Split(
            self.x.to(device), self.y.to(device), self.mean.to(device), self.std.to(device)
        )
