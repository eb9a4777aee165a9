"""Training on a GPU, where there is one: real CUDA graphs, and resuming bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idl_core import ImplicitFunctionWarning, ImplicitModel, ImplicitRNN, flush_warnings
from idl_core.training import (
    TASKS,
    Callback,
    CheckpointFolder,
    FitResult,
    Settings,
    TrainingComponents,
    cosine,
    fit,
)
from idl_core.training.graphs.cuda import CudaGraphs

from .conftest import Samples, classes, network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

# Of 101 samples: 25 batches and a smaller one a pass.
SETTINGS = Settings(batch_size=4, max_epochs=3, log_every=40, checkpoint_seconds=0, grad_clip=0.5)


class Wrapped(nn.Module):
    """Sequences out of the samples, for the RNN."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = ImplicitRNN(2, 3, 10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.view(-1, 2, 2))


class AsksTheHost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if float(y.detach().sum()) < 1e30 else 0 * y


def small() -> nn.Module:
    torch.manual_seed(0)
    return ImplicitModel(4, 3, 16)


def low_rank() -> nn.Module:
    torch.manual_seed(0)
    return ImplicitModel(4, 3, 16, low_rank=True, rank=3)


def sequences() -> nn.Module:
    torch.manual_seed(0)
    return Wrapped()


def asks_the_host() -> nn.Module:
    torch.manual_seed(0)
    return AsksTheHost()


class Told(Callback):
    def __init__(self) -> None:
        self.problems: list[str] = []

    def on_problem(self, problem: str) -> None:
        self.problems.append(problem)


def on_gpu(samples: Samples) -> Samples:
    return Samples(samples.x.cuda(), samples.y.cuda())


def run(
    make: Callable[[], nn.Module],
    cuda_graph: str,
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    folder: Path | None = None,
    **more: Any,
) -> tuple[nn.Module, FitResult, Told]:
    model, told = make().cuda(), Told()
    torch.manual_seed(1)  # of dropout
    settings = dataclasses.replace(SETTINGS, cuda_graph=cuda_graph)
    components = TrainingComponents(
        model,
        TASKS["classification"],
        kind(model.parameters(), lr=0.02, fused=True),
        on_gpu(classes(101)),
        on_gpu(classes(20, seed=1)),
        cosine(settings.total_steps(101), 2),
    )
    checkpoints = None if folder is None else CheckpointFolder(folder)
    result = fit(components, settings, callback=told, checkpoints=checkpoints, **more)
    return model, result, told


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each capture."""
    found: list[int] = []
    capture = CudaGraphs.capture
    monkeypatch.setattr(
        CudaGraphs, "capture", lambda self, work: found.append(1) or capture(self, work)
    )
    return found


@pytest.mark.parametrize("make", [network, small, low_rank, sequences])
def test_captured_steps_train_as_eager_ones(
    make: Callable[[], nn.Module], captured: list[int]
) -> None:
    model, result, told = run(make, "on")
    assert not told.problems
    assert len(captured) == 3  # of one step, of several, of an evaluation
    eager, expected, _ = run(make, "off")
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-3)
    assert result.val["loss"] == pytest.approx(expected.val["loss"], rel=2e-2)
    assert result.train["loss"] == pytest.approx(expected.train["loss"], rel=2e-2)


def test_momentum_too(captured: list[int]) -> None:
    def sgd(parameters: Any, **options: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, momentum=0.9, **options)

    model, _, told = run(small, "on", sgd)
    assert captured
    assert not told.problems
    eager, _, _ = run(small, "off", sgd)
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("make", [network, small])
@pytest.mark.parametrize("cuda_graph", ["on", "off"])
def test_killed_and_resumed_equals_never_killed(
    make: Callable[[], nn.Module], cuda_graph: str, tmp_path: Path
) -> None:
    whole, _, _ = run(make, cuda_graph)
    asked: list[int] = []
    _, first, _ = run(
        make, cuda_graph, folder=tmp_path, stop=lambda: asked.append(1) or len(asked) >= 4
    )
    assert first.interrupted
    again, result, _ = run(make, cuda_graph, folder=tmp_path, resume=True)
    assert result.progress.step == SETTINGS.total_steps(101)
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_model_that_asks_the_host_runs_eagerly_and_it_is_said(captured: list[int]) -> None:
    model, _, told = run(asks_the_host, "auto")
    (line,) = told.problems
    assert line.startswith("training steps run one operation at a time: they cannot be captured")
    assert not captured  # seen before
    eager, _, told = run(asks_the_host, "off")
    assert not told.problems
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_failed_capture_leaves_the_device_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as of what only then turns out to wait for it."""
    monkeypatch.setattr(CudaGraphs, "warm_up", lambda self, work: None)
    _, result, told = run(asks_the_host, "auto")
    assert len(told.problems) == 1
    assert result.progress.step == SETTINGS.total_steps(101)


def test_a_solve_in_a_graph_that_stops_short_is_warned_of(captured: list[int]) -> None:
    def hasty() -> nn.Module:
        torch.manual_seed(0)
        model = ImplicitModel(4, 3, 16, mitr=1, grad_mitr=1)
        with torch.no_grad():
            model.A.mul_(3)
        return model

    flush_warnings()
    models = []
    with pytest.warns(ImplicitFunctionWarning) as said:
        models += [run(hasty, "on")[0], flush_warnings()]
    assert captured
    # The first step runs eagerly, and one a pass: nearly all of these are of replays.
    assert sum("implicit model did not converge" in str(one.message) for one in said) > 6
    assert models[0].last_solution.forward.iterations.max() == 1
