"""The metrics of a task, against scikit-learn's and by hand; and that batches do not matter."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from idl_core.training import TASKS, Language, Regression, evaluate, predict


class Table:
    """A split whose inputs are the outputs: the model of these tests is the identity."""

    def __init__(self, outputs: Tensor, targets: Tensor) -> None:
        self.outputs, self.targets = outputs, targets

    def __len__(self) -> int:
        return len(self.outputs)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.outputs[index], self.targets[index]


class Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def metrics_of(task: str, outputs: Tensor, targets: Tensor, batch_size: int) -> dict[str, float]:
    return evaluate(Identity(), Table(outputs, targets), TASKS[task], batch_size)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_classification(batch_size: int) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(23, 5), torch.arange(23) % 5
    found = metrics_of("classification", outputs, targets, batch_size)
    probabilities = outputs.double().softmax(-1).numpy()
    assert found["accuracy"] == metrics.accuracy_score(targets, outputs.argmax(-1))
    assert found["loss"] == pytest.approx(metrics.log_loss(targets, probabilities), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("shape", [(23,), (23, 1), (23, 3)])
def test_regression(shape: tuple[int, ...], batch_size: int) -> None:
    torch.manual_seed(0)
    targets = 100 + torch.randn(shape)
    outputs = targets + 0.5 * torch.randn(shape)
    found = metrics_of("regression", outputs, targets, batch_size)
    y, p = targets.double().numpy(), outputs.double().numpy()
    assert found["mse"] == found["loss"] == pytest.approx(metrics.mean_squared_error(y, p))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p))
    assert found["mape"] == pytest.approx(metrics.mean_absolute_percentage_error(y, p))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p), rel=1e-9)


@pytest.mark.parametrize(("miss", "r2"), [(0.0, 1.0), (0.5, 0.0)])
def test_r2_of_a_constant_target_is_that_of_scikit_learn(miss: float, r2: float) -> None:
    targets = torch.full((9, 1), 0.1)
    assert metrics.r2_score(targets, targets + miss) == r2
    assert metrics_of("regression", targets + miss, targets, 4)["r2"] == r2


def test_regression_in_the_units_of_a_file() -> None:
    torch.manual_seed(0)
    targets = torch.randn(23, 2)
    outputs = targets + 0.5 * torch.randn(23, 2)
    found = evaluate(Identity(), Table(outputs, targets), Regression(500.0, 20.0), 7)
    y, p = (500 + 20 * values.double().numpy() for values in (targets, outputs))
    assert found["loss"] == pytest.approx(torch.nn.functional.mse_loss(outputs, targets).item())
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(y, p))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p))
    assert found["mape"] == pytest.approx(metrics.mean_absolute_percentage_error(y, p))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p))


def test_every_output_in_its_own_units_however_far_from_zero() -> None:
    torch.manual_seed(0)
    targets = torch.randn(23, 2)
    outputs = targets + 0.5 * torch.randn(23, 2)
    center, scale = torch.tensor([1e9, -3.0]).double(), torch.tensor([1.0, 50.0]).double()
    found = evaluate(Identity(), Table(outputs, targets), Regression(center, scale), 7)
    y, p = ((center + scale * values.double()).numpy() for values in (targets, outputs))
    assert found["loss"] == pytest.approx(torch.nn.functional.mse_loss(outputs, targets).item())
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(y, p))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p))
    assert found["mape"] == pytest.approx(metrics.mean_absolute_percentage_error(y, p))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p))


def test_predictions_are_in_the_order_of_the_split() -> None:
    outputs = torch.randn(23, 2)
    for batch_size in (1, 7, 100):
        assert torch.equal(predict(Identity(), Table(outputs, outputs), batch_size), outputs)


def test_regression_does_not_broadcast_a_column_against_a_row() -> None:
    targets = torch.arange(4.0)
    assert metrics_of("regression", targets[:, None], targets, 4)["mse"] == 0
    with pytest.raises(RuntimeError, match="shape"):
        metrics_of("regression", torch.zeros(4, 2), targets, 4)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_language(batch_size: int) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(7, 6, 11), torch.randint(0, 11, (7, 6))
    found = metrics_of("language", outputs, targets, batch_size)
    chosen = outputs.double().log_softmax(-1).gather(-1, targets[..., None])
    loss = -chosen.mean().item()
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert found["bits_per_char"] == pytest.approx(loss / math.log(2), rel=1e-6)


def test_bits_are_counted_by_character_where_a_token_has_several() -> None:
    outputs, targets = torch.randn(7, 6, 11), torch.randint(0, 11, (7, 6))
    by_token = metrics_of("language", outputs, targets, 3)
    found = evaluate(Identity(), Table(outputs, targets), Language(4.0), 3)
    assert found["bits_per_char"] == pytest.approx(by_token["bits_per_char"] / 4)
    assert found["perplexity"] == by_token["perplexity"]


def test_a_diverged_language_model_has_infinite_perplexity() -> None:
    outputs = torch.tensor([[[1000.0, 0.0]]])
    assert metrics_of("language", outputs, torch.tensor([[1]]), 1)["perplexity"] == math.inf


def test_evaluation_leaves_the_mode_of_the_model_alone() -> None:
    model = Identity()
    for training in (True, False):
        model.train(training)
        evaluate(model, Table(torch.ones(2, 3), torch.zeros(2).long()), TASKS["classification"], 2)
        assert model.training is training
