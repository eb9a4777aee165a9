"""The states that SIM's benchmarks solve: of an MNIST network, and of a larger random one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mnist_digits import TRAIN_SIZE, load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from idl.sim import SIM

SAMPLES = 2_000
KAPPA = 0.99
STRENGTH = 1e-6


@dataclass(frozen=True, eq=False)
class Problem:
    """States X, U, Z, Y (columns are samples), and the samples that models are tested on."""

    states: dict[str, np.ndarray[Any, Any]]
    sizes: tuple[int, int, int, int]  # n, p, q, m
    test: DataLoader[Any] | None = None
    teacher_accuracy: float | None = None

    @property
    def columns(self) -> int:
        """D = n + p."""
        return self.sizes[0] + self.sizes[1]

    def arrays(self) -> tuple[np.ndarray[Any, Any], ...]:
        """X, U, Z, Y."""
        return tuple(self.states[key] for key in ("X", "U", "Z", "Y"))


def mnist_problem(folder: Path) -> Problem:
    """Teacher 784-64-32-16-10 (ReLU, no bias) of 8,000 digits; states of the first 2,000."""
    parts = [(s.x.flatten(1).float() / 255, s.y) for s in load_digits(folder)]
    train, test = (TensorDataset(*part) for part in parts)
    teacher = _network((784, 64, 32, 16, 10))
    _train(teacher, *parts[0])
    with torch.no_grad():
        right = (teacher(parts[1][0]).argmax(1) == parts[1][1]).float().mean()
    assert len(train) == TRAIN_SIZE
    first = torch.utils.data.Subset(train, range(SAMPLES))
    states = SIM().get_states(teacher, DataLoader(first, batch_size=500))
    return Problem(states, (112, 784, 10, SAMPLES), DataLoader(test, batch_size=2000), float(right))


def large_problem() -> Problem:
    """D = 4,000, n = 1,000, m = 3,000: a random network 3000-500-300-200-10 on normal inputs."""
    torch.manual_seed(0)
    teacher = _network((3000, 500, 300, 200, 10))
    inputs = torch.randn(3000, 3000)
    states = SIM().get_states(teacher, [inputs])
    return Problem(states, (1000, 3000, 10, 3000))


def _network(widths: Sequence[int]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.Linear(narrow, wide, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _train(teacher: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-3)
    for _ in range(15):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(x[batch]), y[batch]).backward()
            optimizer.step()
