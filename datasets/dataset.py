"""A data set: its splits and what a model must know to be built for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

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
    """

    name: str
    train: Split
    val: Split | None
    test: Split
    task: str
    input_shape: tuple[int, ...]
    output_dim: int
    class_names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with every split on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            val=None if self.val is None else self.val.to(device),
            test=self.test.to(device),
        )
