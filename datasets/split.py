"""The samples of one split, and the batches cut from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from .normalisation import Normalisation


@dataclass(frozen=True, eq=False)
class Split:
    """The samples of one split, decoded, on one device; none of its tensors is written to.

    x: uint8 (m, *input_shape) for pictures (values 0..255, channels first), else floats
    y: int64 (m,) class labels, or float64 (m, q) regression targets
    normalisation: what batches go through; taken from the train split, or of an earlier training

    A split of another kind (windows of a text) needs `__len__`, `batch` and `to`.
    """

    x: Tensor
    y: Tensor
    normalisation: Normalisation

    def __len__(self) -> int:
        return self.x.shape[0]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, *input_shape) and targets of the samples at `index`, normalised, float32.

        index: int64 (b,), on the device of the split; a sample may occur more than once.
        """
        # Gather first, then convert: a quarter of the bytes to move for pictures.
        return (
            self.normalisation.inputs(self.x.index_select(0, index)),
            self.normalisation.targets(self.y.index_select(0, index)),
        )

    def targets(self) -> Tensor:
        """The targets of all samples as batches have them."""
        return self.normalisation.targets(self.y)

    def to(self, device: torch.device | str) -> Self:
        """The same split on `device`; the very tensors where they are there already."""
        return replace(
            self,
            x=self.x.to(device),
            y=self.y.to(device),
            normalisation=self.normalisation.to(device),
        )
