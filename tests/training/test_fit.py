"""The loop: against one written by hand, and against itself when it is stopped and resumed."""

from __future__ import annotations

import dataclasses
import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idl_core.training import (
    TASKS,
    Callback,
    CheckpointError,
    CheckpointFolder,
    FitResult,
    Metrics,
    NonFiniteLoss,
    Plan,
    Progress,
    Settings,
    TrainingComponents,
    cosine,
    epoch_order,
    evaluate,
    fit,
)

from .conftest import Samples, classes, network

TASK = TASKS["classification"]
SETTINGS = Settings(batch_size=8, max_epochs=4, log_every=3, checkpoint_seconds=0)


class Told(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.problems: list[str] = []
        self.saves: list[int] = []
        self.plan: Plan | None = None

    def on_start(self, plan: Plan) -> None:
        self.plan = plan

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self.lines.append((progress.step, progress.pass_number, "train", tuple(metrics.items())))

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        self.lines.append((progress.step, split, tuple(metrics.items()), best))

    def on_save(self, progress: Progress) -> None:
        self.saves.append(progress.step)

    def on_problem(self, problem: str) -> None:
        self.problems.append(problem)


def adam(model: nn.Module, lr: float = 0.02) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def run(
    settings: Settings = SETTINGS,
    val: Samples | None = None,
    folder: Path | None = None,
    **more: Any,
) -> tuple[nn.Module, FitResult, Told]:
    """Train the small network; the random state is that of a new process."""
    model = network()
    told = Told()
    checkpoints = CheckpointFolder(folder) if folder is not None else None
    result = fit(
        TrainingComponents(
            model, TASK, adam(model), classes(), val, cosine(settings.total_steps(37), 2)
        ),
        settings,
        callback=told,
        checkpoints=checkpoints,
        **more,
    )
    return model, result, told


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_steps_are_those_of_a_loop_written_by_hand(train: Samples) -> None:
    settings = dataclasses.replace(SETTINGS, grad_clip=0.5, max_epochs=3)
    model, result, _ = run(settings)
    by_hand = network()
    optimizer = adam(by_hand)
    schedule = cosine(15, 2)
    for epoch in range(3):
        order = epoch_order(37, 0, epoch)
        for number in range(5):
            index = order[number * 8 : number * 8 + 8]
            optimizer.param_groups[0]["lr"] = 0.02 * schedule(epoch * 5 + number)
            loss = nn.functional.cross_entropy(by_hand(train.x[index]), train.y[index])
            loss.backward()
            nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
    assert_same(weights(model), weights(by_hand))
    assert (result.progress.step, result.progress.epoch, result.progress.samples) == (15, 3, 111)


def test_every_sample_once_a_pass_in_another_order(train: Samples) -> None:
    model = network()
    fit(TrainingComponents(model, TASK, adam(model), train), Settings(batch_size=8, max_epochs=2))
    passes = [list(chain(*train.asked[:5])), list(chain(*train.asked[5:]))]
    assert all(sorted(one) == list(range(37)) for one in passes)
    assert passes[0] != passes[1]
    assert not torch.equal(epoch_order(37, 0, 0), epoch_order(37, 1, 0))


@pytest.mark.parametrize("stop_after", range(1, 20))
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    tmp_path: Path, val: Samples, stop_after: int
) -> None:
    whole, whole_result, whole_told = run(val=val)
    steps = iter(range(1, 1000))
    _, interrupted, first = run(val=val, folder=tmp_path, stop=lambda: next(steps) == stop_after)
    assert interrupted.interrupted
    assert interrupted.progress.step == stop_after
    resumed, result, second = run(val=val, folder=tmp_path, resume=True)
    assert not result.interrupted
    assert_same(weights(resumed), weights(whole))
    assert dataclasses.asdict(result) == dataclasses.asdict(whole_result)
    assert second.plan is not None
    assert second.plan.first_step == stop_after
    assert first.lines + second.lines == whole_told.lines


def test_killed_between_checkpoints_and_resumed(tmp_path: Path, val: Samples) -> None:
    whole, whole_result, _ = run(val=val)

    class Killed(BaseException):
        pass

    def die() -> bool:
        nonlocal steps
        steps += 1
        if steps == 14:  # the last checkpoint is of step 12
            raise Killed
        return False

    steps = 0
    with pytest.raises(Killed):
        run(val=val, folder=tmp_path, stop=die)
    resumed, result, told = run(val=val, folder=tmp_path, resume=True)
    assert told.plan is not None
    assert told.plan.first_step == 12
    assert_same(weights(resumed), weights(whole))
    assert dataclasses.asdict(result) == dataclasses.asdict(whole_result)


def test_resuming_where_nothing_was_saved_begins_anew(tmp_path: Path) -> None:
    whole, _, _ = run()
    resumed, _, _ = run(folder=tmp_path / "none", resume=True)
    assert_same(weights(resumed), weights(whole))


def test_resuming_what_is_complete_trains_no_more(tmp_path: Path, val: Samples) -> None:
    whole, first, _ = run(val=val, folder=tmp_path)
    again, second, told = run(val=val, folder=tmp_path, resume=True)
    assert_same(weights(again), weights(whole))
    assert dataclasses.asdict(first) == dataclasses.asdict(second)
    assert told.lines == []


def test_more_epochs_go_on_from_the_last_weights_not_the_best(tmp_path: Path) -> None:
    longer = dataclasses.replace(SETTINGS, max_epochs=8)

    def train_for(settings: Settings, folder: Path | None, resume: bool) -> nn.Module:
        model = network()
        checkpoints = CheckpointFolder(folder) if folder else None
        fit(
            TrainingComponents(model, TASK, adam(model), classes(), classes(20, 1)),
            settings,
            checkpoints=checkpoints,
            resume=resume,
        )
        return model

    whole = train_for(longer, None, False)
    train_for(SETTINGS, tmp_path, False)
    assert_same(weights(train_for(longer, tmp_path, True)), weights(whole))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run(folder=tmp_path)
    other = nn.Linear(4, 3)
    with pytest.raises(CheckpointError, match="another model"):
        fit(
            TrainingComponents(other, TASK, adam(other), classes()),
            SETTINGS,
            checkpoints=CheckpointFolder(tmp_path),
            resume=True,
        )


def test_the_model_ends_with_the_weights_of_its_best_evaluation(val: Samples) -> None:
    settings = dataclasses.replace(SETTINGS, max_epochs=8)
    model, result, told = run(settings, val=val)
    evaluations = [dict(line[2]) for line in told.lines if line[1] == "val"]
    assert len(evaluations) == 8
    assert result.val["loss"] == min(metrics["loss"] for metrics in evaluations)
    assert evaluate(model, val, TASK, 100) == pytest.approx(result.val)
    best = [line[0] for line in told.lines if line[1] == "val" and line[3]]
    assert result.best_step == best[-1]


def test_the_monitored_figure_decides(val: Samples) -> None:
    settings = dataclasses.replace(SETTINGS, max_epochs=8, monitor="accuracy")
    _, result, told = run(settings, val=val)
    accuracies = [dict(line[2])["accuracy"] for line in told.lines if line[1] == "val"]
    assert result.val["accuracy"] == max(accuracies)


def test_without_validation_the_last_weights_are_the_model(tmp_path: Path) -> None:
    model, result, told = run(folder=tmp_path)
    assert result.val == {}
    assert result.best_step == result.progress.step == 20
    assert all(line[2] == "train" for line in told.lines)
    last, best, _ = CheckpointFolder(tmp_path).load()
    assert last is not None
    assert best is None
    assert_same({n: last.tensors[f"model.{n}"] for n in weights(model)}, weights(model))


@pytest.mark.parametrize(
    ("settings", "steps", "epochs"),
    [
        ({"max_epochs": 2}, 10, 2),
        ({"max_epochs": None, "max_steps": 7}, 7, 1),
        ({"max_epochs": 2, "max_steps": 7}, 7, 1),
        ({"max_epochs": 2, "max_steps": 70}, 10, 2),
    ],
)
def test_epochs_or_steps_whichever_come_first(
    val: Samples, settings: dict[str, Any], steps: int, epochs: int
) -> None:
    _, result, told = run(dataclasses.replace(SETTINGS, **settings), val=val)
    assert (result.progress.step, result.progress.epoch) == (steps, epochs)
    assert told.lines[-1][:2] == (steps, "val")  # the last weights are evaluated too


def test_no_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_epochs or max_steps"):
        Settings(max_epochs=None).total_steps(10)


def test_evaluations_at_a_number_of_steps(val: Samples) -> None:
    _, _, told = run(dataclasses.replace(SETTINGS, eval_every=4, max_epochs=2), val=val)
    assert [line[0] for line in told.lines if line[1] == "val"] == [4, 8, 10]


def test_patience_stops_early(val: Samples) -> None:
    settings = Settings(batch_size=8, max_epochs=500, patience=3)
    model = network()
    result = fit(TrainingComponents(model, TASK, adam(model, lr=0.5), classes(), val), settings)
    assert result.stopped_early
    assert result.progress.step - result.best_step == 3 * 5
    assert evaluate(model, val, TASK, 100) == pytest.approx(result.val)


def test_training_figures_are_exact_means_since_the_last_report() -> None:
    class Still(nn.Module):
        """Never changes, so that the mean over a pass is that of the whole split."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layer(inputs)

    model, told = Still(), Told()
    fit(
        TrainingComponents(model, TASK, torch.optim.SGD(model.parameters(), lr=0.0), classes()),
        Settings(batch_size=8, max_epochs=2, log_every=100),
        callback=told,
    )
    expected = evaluate(model, classes(), TASK, 5)
    for line in told.lines:
        metrics = dict(line[3])
        assert metrics.pop("lr") == 0.0
        assert metrics == pytest.approx(expected, rel=1e-6)


class Exploding(nn.Module):
    """Gives NaN from a number of calls in training on."""

    def __init__(self, healthy: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.left = healthy

    def forward(self, inputs: Tensor) -> Tensor:
        self.left -= self.training
        return self.layer(inputs) * (math.nan if self.left < 0 else 1.0)


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1000.0])
def test_a_non_finite_loss_stops_and_spoils_no_checkpoint(
    tmp_path: Path, val: Samples, checkpoint_seconds: float
) -> None:
    settings = dataclasses.replace(SETTINGS, checkpoint_seconds=checkpoint_seconds)
    model, told = Exploding(13), Told()
    with pytest.raises(NonFiniteLoss, match="step 13, epoch 3"):
        fit(
            TrainingComponents(model, TASK, adam(model), classes(), val),
            settings,
            callback=told,
            checkpoints=CheckpointFolder(tmp_path),
        )
    last, _, problems = CheckpointFolder(tmp_path).load()
    best = CheckpointFolder(tmp_path).load_best()
    assert last is not None
    assert not problems
    for checkpoint in (last, best):
        assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
    # The best weights may have waited in memory: they are saved before the end.
    good = [line[0] for line in told.lines if line[1] == "val" and line[3]]
    assert best.step == good[-1]
    assert last.step == (12 if checkpoint_seconds == 0 else 3)


def test_weights_that_became_infinite_are_never_saved(tmp_path: Path) -> None:
    class Wide(nn.Module):
        """Its loss stays finite while one of its weights does not."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.idle = nn.Linear(4, 3), nn.Parameter(torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            if inputs.shape[0] == 5:  # the last batch of a pass
                self.idle.data.fill_(math.inf)
            return self.layer(inputs)

    model = Wide()
    with pytest.raises(NonFiniteLoss, match="idle"):
        fit(
            TrainingComponents(model, TASK, torch.optim.SGD(model.parameters(), 0.1), classes()),
            SETTINGS,
            checkpoints=CheckpointFolder(tmp_path),
        )
    last, _, _ = CheckpointFolder(tmp_path).load()
    assert last is not None
    assert last.step == 3
    assert all(tensor.isfinite().all() for tensor in last.tensors.values())


def test_a_checkpoint_that_cannot_be_written_is_said_and_survived(
    tmp_path: Path, val: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    model, result, told = run(val=val, folder=tmp_path)
    monkeypatch.undo()
    assert result.progress.step == 20
    assert all("No space left" in problem for problem in told.problems)
    assert told.problems
    assert not told.saves
    assert not result.saved
    assert evaluate(model, val, TASK, 100) == pytest.approx(result.val)


def test_checkpoints_are_not_written_more_often_than_told(tmp_path: Path) -> None:
    _, _, told = run(dataclasses.replace(SETTINGS, checkpoint_seconds=1000), folder=tmp_path)
    assert told.saves == [3, 20]  # as soon as there is something, and at the end


def test_the_checkpoint_before_the_last_is_another_one(tmp_path: Path) -> None:
    _, _, told = run(folder=tmp_path)  # which saves at every report, so at the last step too
    assert len(told.saves) == len(set(told.saves))
    folder = CheckpointFolder(tmp_path)
    folder.last.write_bytes(b"")
    before = folder.load()[0]
    assert before is not None
    assert before.step == told.saves[-2]


def test_nothing_is_called_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ticks go by the clock, and a busy machine may take long.
    monkeypatch.setattr("time.monotonic", lambda: 0.0)

    class Counting(Callback):
        calls = 0

        def on_log(self, *_: object) -> None:
            self.calls += 1

        on_tick = on_save = on_log  # type: ignore[assignment]

    counting = Counting()
    probes: list[int] = []

    def probe(model: nn.Module) -> Metrics:
        probes.append(1)
        return {"iterations": 7.0}

    model = network()
    settings = Settings(batch_size=1, max_epochs=1, log_every=10)
    fit(
        TrainingComponents(model, TASK, adam(model), classes()),
        settings,
        callback=counting,
        probe=probe,
    )
    assert len(probes) == 4
    assert counting.calls <= 8


def test_learning_rates_are_given_back() -> None:
    model = network()
    optimizer = adam(model, lr=0.3)
    fit(TrainingComponents(model, TASK, optimizer, classes(), None, cosine(20)), SETTINGS)
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("precision", ["64", "bf16"])
def test_other_precisions_learn(precision: Any, val: Samples) -> None:
    model = network().to(torch.float64 if precision == "64" else torch.float32)
    settings = dataclasses.replace(SETTINGS, max_epochs=10, precision=precision)
    result = fit(TrainingComponents(model, TASK, adam(model), classes(), val), settings)
    assert result.val["accuracy"] > 0.9
    assert next(model.parameters()).dtype == (torch.float64 if precision == "64" else torch.float32)
