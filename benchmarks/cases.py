"""The equilibria that are timed: sizes, weights, a batch; the same for every package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from recipe import LEARNING_RATE
from torch import Tensor

import idl_datasets
from idl import ImplicitModel
from idl_core.training import Classification, Settings, TrainingComponents, fit
from idl_datasets import Normalisation, Split

MNIST_SIZES = (784, 100, 10, 64)
CIFAR_SIZES = (3072, 300, 10, 100)
LARGE_SIZES = (3072, 1000, 10, 256)
KAPPA = 0.99


@dataclass(frozen=True, eq=False)
class Case:
    """A model's weights and a batch; `weights` holds the *effective* A, within the ball.

    sizes: p, n, q, m
    rank: of A = L Rᵀ, where the weights are L and R
    """

    name: str
    sizes: tuple[int, int, int, int]
    weights: dict[str, Tensor]
    inputs: Tensor
    targets: Tensor
    rank: int | None = None


def dense_cases(digits: Split | None, pictures: Split | None) -> Iterator[Case]:
    """Initial and trained weights at the two sizes; random samples where data are absent."""
    for sizes, split, rate, what in (
        (MNIST_SIZES, digits, LEARNING_RATE, "MNIST"),
        (CIFAR_SIZES, pictures, 5e-4, "CIFAR-10"),
    ):
        data = split or random_split(sizes[0])
        source = what if split else "random data"
        model = _new_model(sizes)
        yield _case(f"initial, {source}", sizes, model, data)
        settings = Settings(batch_size=sizes[3], max_epochs=2)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        fit(TrainingComponents(model, Classification(), optimizer, data), settings)
        yield _case(f"trained, {source}", sizes, model, data)


def slow_cases(digits: Split | None, pictures: Split | None) -> Iterator[Case]:
    """A uniformly positive with every row sum at kappa: Picard iteration gains 1 % a step."""
    for sizes, split in (
        (MNIST_SIZES, digits),
        (CIFAR_SIZES, pictures),
        (LARGE_SIZES, pictures),
    ):
        model = _new_model(sizes)
        A = torch.rand(sizes[1], sizes[1])
        with torch.no_grad():
            model.A.copy_(A * (KAPPA / A.sum(1, keepdim=True)))
        yield _case("uniform A", sizes, model, split or random_split(sizes[0]))


def low_rank_case(digits: Split | None) -> Case:
    """A = L Rᵀ of rank 4 with 1,000 states, at initial weights."""
    return _low_rank_case((784, 1000, 10, 256), digits or random_split(784))


def narrow_low_rank_case() -> Case:
    """The same for 100 random features: most of the work is then the solve, not products with U."""
    return _low_rank_case((100, 1000, 10, 256), random_split(100))


def load_pictures(path: Path | None) -> Split | None:
    """The train pictures of an image folder or zip of 32 x 32 pictures; None where it is absent."""
    if path is None:
        path = idl_datasets.default_root() / "cifar10_jpg_12k.zip"
    if not path.exists():
        return None
    return idl_datasets.load("image_folder", path=path, val_fraction=0).train


def random_split(p: int) -> Split:
    """1,000 normal samples of p features, labelled by chance."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, p, generator=generator)
    y = torch.randint(0, 10, (1000,), generator=generator)
    return Split(x, y, Normalisation(torch.zeros(p), torch.ones(p)))


def _low_rank_case(sizes: tuple[int, int, int, int], data: Split) -> Case:
    torch.manual_seed(0)
    p, n, q, _ = sizes
    model = ImplicitModel(p, q, n, is_low_rank=True, rank=4)
    return _case("low rank 4, initial", sizes, model, data, rank=4)


def _new_model(sizes: tuple[int, int, int, int]) -> ImplicitModel:
    torch.manual_seed(0)
    p, n, q, _ = sizes
    return ImplicitModel(p, q, n, kappa=KAPPA)


def _case(
    name: str,
    sizes: tuple[int, int, int, int],
    model: ImplicitModel,
    data: Split,
    rank: int | None = None,
) -> Case:
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    if rank is None:
        # A little inside the ball, so that rounding makes no package project it once more.
        weights["A"] = model.effective_A().detach() * (1 - 1e-6)
    # From all over the split: pictures of a folder come class by class.
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))[: sizes[3]]
    inputs, targets = data.batch(index)
    return Case(name, sizes, weights, inputs.flatten(1), targets, rank)
