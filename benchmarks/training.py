"""Training on MNIST digits against torchidl: the time of an epoch, and the accuracy after ten.

python benchmarks/training.py [--data FOLDER] [--seeds N] [--repeats N]
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from mnist_digits import absent_message, find_raw_folder, load_digits
from peers import require
from recipe import BATCH_SIZE, DESCRIPTION, HIDDEN_DIM, LEARNING_RATE, train_and_test
from timing import conditions, paired_medians
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from idl import ImplicitModel
from idl_core.training import Classification, Settings, TrainingComponents, fit
from idl_datasets import Split

INPUT_DIM, CLASSES = 784, 10


class PicturesAsFiles(Dataset):
    """The digits as torchvision's MNIST gives them: a PIL image for each sample, transformed."""

    def __init__(self, split: Split) -> None:
        from torchvision import transforms

        self.pictures, self.labels = split.x[:, 0].numpy(), split.y.tolist()
        # The transforms of torchidl's example, but normalised by the figures that ours uses.
        mean, std = split.normalisation.mean.item() / 255, split.normalisation.std.item() / 255
        self.transform = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize((mean,), (std,)),
                transforms.Lambda(torch.flatten),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pictures[index])), self.labels[index]


class FlatInputs(nn.Module):
    """torchidl's model behind inputs of any trailing shape, which ours takes by itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, U: Tensor) -> Tensor:
        return self.model(U.flatten(1))


def torchidl_model(seed: int) -> nn.Module:
    import torchidl

    torch.manual_seed(seed)
    return torchidl.ImplicitModel(INPUT_DIM, CLASSES, HIDDEN_DIM)


def our_model(seed: int) -> ImplicitModel:
    torch.manual_seed(seed)
    return ImplicitModel(INPUT_DIM, CLASSES, HIDDEN_DIM)


def our_epoch(train: Split) -> None:
    """One epoch by the project's loop, which also keeps the figures that it reports."""
    model = our_model(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    settings = Settings(batch_size=BATCH_SIZE, max_epochs=1)
    fit(TrainingComponents(model, Classification(), optimizer, train), settings)


def torchidl_epoch(loader: DataLoader) -> None:
    """One epoch as in torchidl's example: loss and accuracy are summed, nothing is evaluated."""
    model = torchidl_model(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loss_sum, correct, count = 0.0, 0, 0
    for inputs, targets in loader:
        scores = model(inputs)
        loss = nn.functional.cross_entropy(scores, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        correct += int((scores.argmax(-1) == targets).sum())
        count += len(targets)
        loss_sum += loss.item()


def epoch_times(train: Split, repeats: int) -> None:
    loader = DataLoader(PicturesAsFiles(train), batch_size=BATCH_SIZE, shuffle=True)
    own_s, peer_s = paired_medians(
        [lambda: our_epoch(train), lambda: torchidl_epoch(loader)], repeats, warmup=1
    )
    print(f"\nOne epoch of {len(train):,} MNIST digits, n = {HIDDEN_DIM}, batch {BATCH_SIZE}")
    print(f"ours {own_s:.2f} s, torchidl {peer_s:.2f} s: {peer_s / own_s:.1f}x faster")


def accuracies(train: Split, test: Split, seeds: int) -> None:
    """By one loop, in one order of samples, from one seed of initial weights.

    The middle column has our normalisation for both, so that the models alone differ; the last has
    the (x - 0.5) / 0.5 of torchidl's example.
    """
    print(f"\nTest accuracy on {len(test):,} MNIST digits, {DESCRIPTION}")
    print(f"{'seed':<6} {'ours':>8} {'torchidl':>9} {'torchidl, its normalisation':>28}")
    half = torch.full((1, 1, 1), 127.5)
    theirs = [replace(split, mean=half, std=half) for split in (train, test)]
    rows = []
    for seed in range(seeds):
        contenders = (
            (our_model(seed), (train, test)),
            (FlatInputs(torchidl_model(seed)), (train, test)),
            (FlatInputs(torchidl_model(seed)), theirs),
        )
        rows.append([train_and_test(m, *splits, seed).test_accuracy for m, splits in contenders])
        _print_accuracies(str(seed), rows[-1])
    _print_accuracies("mean", [sum(column) / seeds for column in zip(*rows, strict=True)])


def _print_accuracies(label: str, row: list[float]) -> None:
    own, peer, peer_as_published = row
    print(f"{label:<6} {own:8.4f} {peer:9.4f} {peer_as_published:28.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's t10k files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7, help="of an epoch, for each side")
    arguments = parser.parse_args()
    require("torchidl")
    folder = find_raw_folder(arguments.data)
    if folder is None:
        print(absent_message())
        return
    # Some batches are solved to the rounding error of float32, which ours says once.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    train, test = load_digits(folder)
    print(conditions("torchidl"))
    epoch_times(train, arguments.repeats)
    accuracies(train, test, arguments.seeds)


if __name__ == "__main__":
    main()
