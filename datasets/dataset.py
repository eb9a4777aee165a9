"""A data set: its splits and what a model must know to be built for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import torch

from .normalisation import Normalisation
from .split import Split


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, decoded and divided, on one device.

    name: as given to `load`
    train, val, test: the splits; `val` is None where `val_fraction` was 0
    task: "classification" or "regression"
    input_shape: the shape of one sample; pictures are (channels, height, width)
    output_dim: the number of classes, or of regression targets
    class_names: one a class, in the order of the labels; () for regression
    digest: of the content, before the validation cut: the same wherever the same data lie
    notes: what was done to the user's data that they may not expect, a line each
    """

    name: str
    train: Split
    val: Split | None
    test: Split
    task: str
    input_shape: tuple[int, ...]
    output_dim: int
    class_names: tuple[str, ...]
    digest: str = field(kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def normalisation(self) -> Normalisation:
        """What the batches of every split go through."""
        return self.train.normalisation

    def normalised(self, normalisation: Normalisation) -> Self:
        """The same samples seen through another normalisation: that of an earlier training."""
        return self._each(lambda split: replace(split, normalisation=normalisation))

    def to(self, device: torch.device | str) -> Self:
        """The same data set with every split on `device`."""
        return self._each(lambda split: split.to(device))

    def _each(self, change: Callable[[Split], Split]) -> Self:
        return replace(
            self,
            train=change(self.train),
            val=None if self.val is None else change(self.val),
            test=change(self.test),
        )
