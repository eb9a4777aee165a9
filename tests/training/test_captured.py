"""Steps as graphs: when, of what, and what happens where they cannot be. Python stands in for the
graphs here; `test_on_a_gpu.py` has real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idl_core.training import (
    TASKS,
    Callback,
    CannotCapture,
    CheckpointFolder,
    FitResult,
    Settings,
    Team,
    TrainingComponents,
    cosine,
    fit,
    loop,
)
from idl_core.training.graphs import graphs_for
from idl_core.training.graphs.steps import SEVERAL

from .conftest import Samples, classes, network

# Of 101 samples: 25 batches and a smaller one a pass.
COUNT, SIZE = 101, 4
SETTINGS = Settings(
    batch_size=SIZE,
    eval_batch_size=8,  # of 20 samples
    max_epochs=4,
    log_every=40,
    checkpoint_seconds=0,
    grad_clip=0.5,
)


class Replays:
    """Stands in for CUDA graphs: what is captured is called again.

    Args:
        spoil: what each replay does besides.
    """

    def __init__(self, spoil: Callable[[], None] = lambda: None) -> None:
        # Steps of each graph, and of each replay; 0: an evaluation.
        self.captured: list[int] = []
        self.replayed: list[int] = []
        self._spoil = spoil

    def warm_up(self, work: Callable[[], None]) -> None:
        for _ in range(3):
            work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        steps = work.__self__._repeats if torch.is_grad_enabled() else 0
        self.captured.append(steps)

        def replay() -> None:
            self.replayed.append(steps)
            work()
            self._spoil()

        return replay

    def random_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_random_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)

    def upload(self, values: Sequence[Sequence[float]], into: Tensor) -> None:
        into.copy_(torch.tensor(values))


class Problems(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.logged: list[tuple[int, dict[str, float]]] = []

    def on_problem(self, problem: str) -> None:
        self.lines.append(problem)

    def on_log(self, progress: Any, metrics: dict[str, float]) -> None:
        self.logged.append((progress.step, metrics))


def run(
    graphs: Replays | None,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings = SETTINGS,
    folder: Path | None = None,
    **more: Any,
) -> tuple[nn.Module, FitResult, Problems, Samples]:
    """Train the small network, which has dropout, at a rate that changes in each step."""
    monkeypatch.setattr(loop, "graphs_for", lambda components, team: graphs or "there are none")
    model, told, train = network(), Problems(), classes(COUNT)
    components = TrainingComponents(
        model,
        TASKS["classification"],
        torch.optim.Adam(model.parameters(), lr=0.02),
        train,
        classes(20, seed=1),
        cosine(SETTINGS.total_steps(COUNT), 2),
    )
    checkpoints = None if folder is None else CheckpointFolder(folder)
    result = fit(components, settings, callback=told, checkpoints=checkpoints, **more)
    return model, result, told, train


def test_captured_steps_train_as_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, metrics and random numbers, to float32's rounding of the learning rate."""
    graphs = Replays()
    model, result, told, _ = run(graphs, monkeypatch)
    eager, expected, eager_told, _ = run(None, monkeypatch)
    assert graphs.captured == [1, 0, SEVERAL]
    assert graphs.replayed.count(0) == 4 * 2 + 1  # and the one that is compared
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert result.progress == expected.progress
    assert result.val == pytest.approx(expected.val, rel=1e-5)
    assert [step for step, _ in told.logged] == [step for step, _ in eager_told.logged]
    for (_, one), (_, other) in zip(told.logged, eager_told.logged, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert not told.lines


def test_which_steps_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first and the smaller batches, several at once where nothing is due between."""
    graphs = Replays()
    settings = dataclasses.replace(SETTINGS, batch_size=2, max_epochs=2, log_every=10**6)
    run(graphs, monkeypatch, settings)
    assert graphs.captured == [1, SEVERAL, 0]
    full = COUNT // 2
    assert sum(graphs.replayed) == 2 * full - 1
    # The first that could be together are one short of it.
    assert graphs.replayed.count(SEVERAL) == full // SEVERAL - 1 + full // SEVERAL

    due = Replays()
    run(due, monkeypatch, dataclasses.replace(settings, log_every=7, eval_every=5))
    assert due.captured == [1, 0]


@pytest.mark.parametrize("kill_at", [1, 2, 5, 12])
def test_killed_and_resumed_equals_never_killed(
    kill_at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bit for bit, as the steps are captured or not by their number alone."""
    whole, _, _, _ = run(Replays(), monkeypatch)
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) >= kill_at

    _, first, _, _ = run(Replays(), monkeypatch, folder=tmp_path, stop=stop)
    assert first.interrupted
    torch.manual_seed(5)
    again, result, _, _ = run(Replays(), monkeypatch, folder=tmp_path, resume=True)
    assert result.progress.step == SETTINGS.total_steps(COUNT)
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_replay_that_differs_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[nn.Module] = []
    monkeypatch.setattr(
        loop, "CapturedStep",
        lambda eager, *rest: trained.append(eager.components.model) or CapturedStep(eager, *rest),
    )  # fmt: skip
    from idl_core.training.graphs import CapturedStep

    def spoil() -> None:
        with torch.no_grad():
            trained[0][0].weight[0, 0] += 1.0

    graphs = Replays(spoil)
    model, _, told, _ = run(graphs, monkeypatch)
    assert len(graphs.replayed) == 1
    (line,) = told.lines
    assert line.startswith("training steps run one operation at a time: a replay of their CUDA")
    eager, _, _, _ = run(None, monkeypatch)
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_evaluation_that_differs_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from idl_core.training.graphs import evaluation

    monkeypatch.setattr(evaluation, "_alike", lambda found, expected: False)
    model, result, told, _ = run(Replays(), monkeypatch)
    (line,) = told.lines
    assert line.startswith("evaluation runs one operation at a time: a replay")
    _, expected, _, _ = run(None, monkeypatch)
    assert result.val == pytest.approx(expected.val, rel=1e-5)
    assert model.training


@pytest.mark.parametrize("moment", ["warm_up", "capture"])
def test_what_cannot_be_captured_runs_eagerly_and_says_why(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = Replays()

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        work()  # half of it is done by then
        raise RuntimeError("called a synchronizing CUDA operation\nmore of it")

    monkeypatch.setattr(graphs, moment, refuse)
    model, _, told, _ = run(graphs, monkeypatch)
    assert told.lines == [
        "training steps run one operation at a time: they cannot be captured in a CUDA graph: "
        "called a synchronizing CUDA operation"
    ]
    eager, _, _, _ = run(None, monkeypatch)
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        assert torch.equal(one, other)


def test_on_off_and_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Replays()
    run(graphs, monkeypatch, dataclasses.replace(SETTINGS, cuda_graph="off", max_epochs=1))
    assert not graphs.captured
    with pytest.raises(CannotCapture, match=r"^cuda_graph=on: there are none; auto"):
        run(None, monkeypatch, dataclasses.replace(SETTINGS, cuda_graph="on"))
    _, _, told, _ = run(None, monkeypatch, dataclasses.replace(SETTINGS, max_epochs=1))
    assert not told.lines  # a CPU has none, and nobody misses them


def test_what_a_training_must_be_for_a_graph() -> None:
    def why(device: str, team: Team, **options: Any) -> object:
        model = nn.Linear(2, 2, device="meta")
        # On the meta device: nothing is computed.
        monkey = [nn.Parameter(torch.empty(2, 2))]
        optimizer = torch.optim.Adam(monkey, **options)
        components = TrainingComponents(model, TASKS["classification"], optimizer, classes())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "idl_core.training.graphs.cuda.device_of", lambda model: torch.device(device)
            )
            patch.setattr("idl_core.training.graphs.cuda.CudaGraphs", lambda *given: given)
            return graphs_for(components, team)

    several = Team()
    several.count = 2
    assert why("cpu", Team()) == "the model is on the cpu, and CUDA graphs are of CUDA devices"
    assert why("cuda:1", several) == "2 processes share the steps"
    assert why("cuda:1", Team()) == "Adam was made without fused=True or capturable=True"
    device, _ = why("cuda:1", Team(), fused=True)
    assert device == torch.device("cuda:1")
