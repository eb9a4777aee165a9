"""Several processes train as one does: the same metrics, every sample once, exact resuming."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from idl_core.training import (
    TASKS,
    Callback,
    CheckpointFolder,
    Group,
    Metrics,
    NonFiniteLoss,
    Progress,
    Settings,
    Team,
    TrainingComponents,
    evaluate,
    fit,
)

from .conftest import Samples, classes, network

TASK = TASKS["classification"]
# 37 samples: the last batch of a pass is a single one, fewer than there are processes.
SETTINGS = Settings(batch_size=9, max_epochs=3, log_every=2, checkpoint_seconds=0)


class Told(Callback):
    def __init__(self) -> None:
        self.losses: list[tuple[int, str, float]] = []

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self.losses.append((progress.step, "train", metrics["loss"]))

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        self.losses.append((progress.step, split, metrics["loss"]))


def steady() -> nn.Module:
    """Draws no random numbers in a step."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, team: Team, **more: Any) -> tuple[Told, Samples]:
    told, samples = Told(), classes()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    fit(
        TrainingComponents(model, TASK, optimizer, samples, classes(20, 1)),
        SETTINGS,
        callback=told,
        team=team,
        **more,
    )
    return told, samples


def member(rank: int, folder: Path) -> None:
    """One of two processes: everything that is to be compared goes into a file."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    team = Group(torch.device("cpu"))
    found: dict[str, Any] = {}

    model = steady()
    if rank:  # the weights of rank 0 are everyone's
        nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    told, samples = train(model, team)
    found["losses"], found["asked"] = told.losses, samples.asked
    found["weights"] = [p.tolist() for p in model.parameters()]
    split = classes(21, 2)
    found["metrics"] = evaluate(model, split, TASK, 4, team=team)
    found["evaluated"] = [number for batch in split.asked for number in batch]

    # Stopped by rank 1 alone, in the middle of a window, and resumed; dropout on both.
    whole = network()
    whole_told, _ = train(whole, team, checkpoints=CheckpointFolder(folder / "whole"))
    halves = []
    for resume in (False, True):
        steps = iter(range(1, 100))
        half = network()
        stop = (lambda steps=steps: next(steps) == 7) if rank and not resume else lambda: False
        checkpoints = CheckpointFolder(folder / "halves")
        told, _ = train(half, team, checkpoints=checkpoints, resume=resume, stop=stop)
        halves += told.losses
    same = zip(whole.state_dict().values(), half.state_dict().values(), strict=True)
    found["resumed"] = all(torch.equal(a, b) for a, b in same)
    found["curves"] = [whole_told.losses, halves]

    broken = steady()
    bad = classes()
    bad.x[5] = torch.nan  # in the share of one process
    try:
        optimizer = torch.optim.Adam(broken.parameters())
        fit(TrainingComponents(broken, TASK, optimizer, bad), SETTINGS, team=team)
    except NonFiniteLoss as error:
        found["non_finite"] = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    # A process that has used a GPU cannot be forked; else it saves importing torch twice.
    method = "spawn" if torch.cuda.is_available() else "fork"
    mp.start_processes(member, (folder,), nprocs=2, start_method=method)  # type: ignore[no-untyped-call]
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return first, second


Found = tuple[dict[str, Any], dict[str, Any]]


def test_the_loss_curve_is_that_of_one_process(found: Found) -> None:
    model = steady()
    told, _ = train(model, Team())
    assert [line[:2] for line in found[0]["losses"]] == [list(line[:2]) for line in told.losses]
    for one, two in zip(told.losses, found[0]["losses"], strict=True):
        assert two[2] == pytest.approx(one[2], abs=1e-5)
    for parameter, weights in zip(model.parameters(), found[0]["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(weights), parameter.data, rtol=0, atol=1e-5)
    assert found[0]["weights"] == found[1]["weights"]
    assert found[1]["losses"] == []  # only rank 0 tells


def test_each_pass_takes_every_sample_once(found: Found) -> None:
    batches = list(zip(found[0]["asked"], found[1]["asked"], strict=True))
    assert len(batches) == 15
    for one in range(3):
        seen = []
        for number, (first, second) in enumerate(batches[5 * one : 5 * one + 5]):
            # The last batch is one sample: the second process stands by with the same.
            seen += first + (second if number < 4 else [])
            assert number < 4 or first == second
        assert sorted(seen) == list(range(37))


def test_evaluation_counts_every_sample_once(found: Found) -> None:
    assert sorted(found[0]["evaluated"] + found[1]["evaluated"]) == list(range(21))
    model = steady()
    for parameter, weights in zip(model.parameters(), found[0]["weights"], strict=True):
        parameter.data = torch.tensor(weights)
    assert found[0]["metrics"] == pytest.approx(evaluate(model, classes(21, 2), TASK, 50))
    assert found[0]["metrics"] == found[1]["metrics"]


def test_stopped_by_any_process_and_resumed_is_as_never_stopped(found: Found) -> None:
    assert found[0]["resumed"]
    assert found[1]["resumed"]
    whole, halves = found[0]["curves"]
    assert [line[:2] for line in halves] == [line[:2] for line in whole]
    for one, two in zip(whole, halves, strict=True):
        assert two[2] == pytest.approx(one[2], rel=1e-12)


def test_a_loss_that_is_not_finite_on_one_share_stops_all_of_them(found: Found) -> None:
    assert "non-finite loss" in found[0]["non_finite"]
    assert found[0]["non_finite"] == found[1]["non_finite"]


def test_a_checkpoint_of_two_processes_is_resumed_by_one(
    found: Found, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "two0"
    longer = dataclasses.replace(SETTINGS, max_epochs=4)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    result = fit(
        TrainingComponents(model, TASK, optimizer, classes()),
        longer,
        checkpoints=CheckpointFolder(folder / "whole"),
        resume=True,
    )
    assert result.progress.step == 20
