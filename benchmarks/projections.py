"""Accuracy of the three projections of A on MNIST, over seeds, by one recipe.

    python benchmarks/projections.py [--data FOLDER] [--seeds N]

The measurement behind the default of `projection`: see docs/well_posedness.md.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path

import torch
from mnist_digits import absent_message, find_raw_folder, load_digits
from recipe import DESCRIPTION, HIDDEN_DIM, train_and_test
from timing import conditions

from idl import ImplicitModel
from idl_core import ImplicitFunctionWarning
from idl_core.wellposed import PROJECTIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's t10k files")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    folder = find_raw_folder(arguments.data)
    if folder is None:
        print(absent_message())
        return
    # Some batches are solved to the rounding error of float32, which the model says once.
    warnings.filterwarnings("ignore", category=ImplicitFunctionWarning)
    train, test = load_digits(folder)
    print(f"{conditions()}\n\nTest accuracy on MNIST, {DESCRIPTION}")
    seeds = range(arguments.seeds)
    print(
        f"{'projection':<10} {'mean':>7} {'spread':>7}  " + " ".join(f"seed {s:<2}" for s in seeds)
    )
    for projection in PROJECTIONS:
        accuracies = []
        for seed in seeds:
            torch.manual_seed(seed)
            model = ImplicitModel(784, 10, HIDDEN_DIM, projection=projection)
            accuracies.append(train_and_test(model, train, test, seed).test_accuracy)
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        row = " ".join(f"{accuracy:7.4f}" for accuracy in accuracies)
        print(
            f"{projection:<10} {statistics.mean(accuracies):7.4f} {spread:7.4f}  {row}", flush=True
        )


if __name__ == "__main__":
    main()
