"""Small data and models that train in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass
class Samples:
    """Samples in memory, as `fit` takes them; counts how often each was asked for."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(index.tolist())
        return self.x[index], self.y[index]


def classes(count: int = 37, seed: int = 0) -> Samples:
    """Points of three classes that a small model can tell apart."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
    return Samples(centres[y] + 0.3 * torch.randn(count, 4, generator=generator), y)


def network() -> nn.Module:
    """A classifier that draws from the random generator in every step (dropout)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.fixture
def train() -> Samples:
    return classes()


@pytest.fixture
def val() -> Samples:
    return classes(20, seed=1)
