"""The training that the accuracies are measured with, the same for every model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from idl_core.training import Classification, Settings, TrainingComponents, evaluate, fit
from idl_datasets import Split

HIDDEN_DIM = 100
LEARNING_RATE = 5e-3
BATCH_SIZE = 64
EPOCHS = 10
DESCRIPTION = f"n = {HIDDEN_DIM}, Adam {LEARNING_RATE:g}, batch {BATCH_SIZE}, {EPOCHS} epochs"


@dataclass(frozen=True)
class Outcome:
    """Figures of the weights after the last epoch."""

    train_loss: float
    test_loss: float
    test_accuracy: float


def train_and_test(
    model: nn.Module, train: Split, test: Split, seed: int, epochs: int = EPOCHS
) -> Outcome:
    """Train `model` in place by the recipe; `seed` is that of the order of the samples.

    The order, the normalisation and the loop are thereby the same for the models of one seed.
    """
    task = Classification()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    settings = Settings(batch_size=BATCH_SIZE, max_epochs=epochs, seed=seed)
    result = fit(TrainingComponents(model, task, optimizer, train), settings)
    figures = evaluate(model, test, task, batch_size=len(test))
    return Outcome(result.train["loss"], figures["loss"], figures["accuracy"])
