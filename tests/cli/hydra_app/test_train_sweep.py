"""`idl train -m`: every job its own directory, one table, failures that stay their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_cli.display.sweep_table import job_columns
from idl_cli.hydra_app.sweep_jobs import read_jobs

from ..conftest import Answer, Idl, MakeRun


def jobs_of(answer: Answer) -> dict[str, dict[str, Any]]:
    return {
        path.parent.name: json.loads(path.read_text()) for path in answer.run.glob("*/summary.json")
    }


def test_a_sweep_ends_in_one_table_best_first(idl: Idl, tiny: list[str]) -> None:
    answer = idl("train", "-m", *tiny, "model.hidden_dim=3,6", "optimizer.lr=1e-5,2e-2")
    assert answer.code == 0, answer.err
    jobs = jobs_of(answer)
    assert sorted(jobs) == ["0", "1", "2", "3"]
    assert answer.run.parent == Path("runs/train")
    assert {path.name for path in answer.run.iterdir()} == {*jobs, "multirun.yaml"}
    assert all(job["status"] == "completed" for job in jobs.values())
    lines = answer.out.splitlines()
    assert lines[0].split()[:3] == ["job", "model.hidden_dim", "optimizer.lr"]
    listed = [line.split()[0] for line in lines[1:5]]
    assert listed == sorted(jobs, key=lambda job: jobs[job]["val"]["loss"])
    for line in lines[1:5]:
        job = jobs[line.split()[0]]
        assert f"{job['test']['accuracy']:.4f}" in line


def test_what_is_of_different_data_is_not_ranked_together(
    idl: Idl, tiny: list[str], arrays: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.npz"
    with np.load(arrays) as file:
        np.savez(other, **file)
    paths = f"data.path={arrays},{other}"
    words = [word for word in tiny if not word.startswith("data.path")]
    answer = idl("train", "-m", *words, "optimizer.lr=1e-5,2e-2", paths)
    assert answer.code == 0, answer.err
    listed = [line.split() for line in answer.out.splitlines()[1:5]]
    # Jobs 0 and 2 are of the first file, 1 and 3 of the second; the larger rate is better.
    assert [row[0] for row in listed] == ["2", "0", "3", "1"]
    (said,) = (line for line in answer.err.splitlines() if "not all of the same data" in line)
    assert str(arrays) in said
    assert str(other) in said


def test_models_that_bring_their_own_data_show_which(make_run: MakeRun, tmp_path: Path) -> None:
    for job, name in enumerate(("digits", "spiky")):
        make_run(f"{job}", config={"data": {"name": name}}, ranked_by="val.loss",
                 overrides=(f"model={job}",))  # fmt: skip
    columns = {column.name: column.cells for column in job_columns(read_jobs(tmp_path / "runs"))}
    assert columns["data"] == ["digits", "spiky"]


def test_jobs_stand_in_the_order_of_their_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    for job in range(12):
        make_run(f"lr_{job}", ranked_by="val.loss")
    names = [job.path.name for job in read_jobs(tmp_path / "runs")]
    assert names == [f"lr_{job}" for job in range(12)]


@pytest.mark.parametrize(
    "words", [["hydra.mode=MULTIRUN"], ["--config-dir", "mine", "experiment=sweep"]]
)
def test_a_sweep_can_be_asked_for_in_hydras_other_ways(
    idl: Idl, tiny: list[str], tmp_path: Path, words: list[str]
) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "sweep.yaml").write_text("# @package _global_\nhydra:\n  mode: MULTIRUN\n")
    answer = idl("train", *words, *tiny, "trainer.max_epochs=1", "seed=1,2")
    assert answer.code == 0, answer.err
    assert sorted(jobs_of(answer)) == ["0", "1"]


def test_the_table_tells_who_ran_out_of_patience(idl: Idl, tiny: list[str]) -> None:
    words = ["trainer.max_epochs=30", "trainer.patience=1", "optimizer.lr=1e-9,0.02"]
    answer = idl("train", "-m", *tiny, *words, "trainer.monitor=accuracy")
    early = {name for name, job in jobs_of(answer).items() if job["stopped_early"]}
    assert "0" in early  # nothing improves at such a rate
    told = {line.split()[0]: "stopped early" in line for line in answer.out.splitlines()[1:3]}
    assert told == {name: name in early for name in ("0", "1")}


def test_a_failing_job_takes_no_other_down(idl: Idl, tiny: list[str]) -> None:
    answer = idl("train", "-m", *tiny, "optimizer=sgd", "optimizer.lr=1e20,0.01", "model=implicit")
    jobs = jobs_of(answer)
    assert {name: job["status"] for name, job in jobs.items()} == {"0": "failed", "1": "completed"}
    assert answer.code == 1
    assert "job 0 failed: non-finite loss" in answer.err
    assert answer.out.splitlines()[1].split()[0] == "1"  # the failed one is listed last
    assert "failed" in answer.out.splitlines()[2]


def test_wrong_input_to_one_job_is_refused_before_any_begins(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    answer = idl("train", "-m", *tiny, "model.kappa=0.5,1.5")
    assert answer.code == 2
    assert answer.err.startswith("idl: model.kappa=1.5")
    assert answer.err.count("\n") == 1, answer.err
    assert answer.out == ""
    assert not list(tmp_path.iterdir())


def test_a_bug_in_one_job_is_shown_and_the_rest_go_on(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from idl_cli.config.build_model import build_model

    def bug(config: Any, dataset: Any) -> Any:
        if config.hidden_dim == 3:
            raise ZeroDivisionError("ours")
        return build_model(config, dataset)

    monkeypatch.setattr("idl_cli.jobs.training.setup.build_model", bug)
    answer = idl("train", "-m", *tiny, "model.hidden_dim=3,4")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert [job["status"] for _, job in sorted(jobs_of(answer).items())] == ["failed", "completed"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=implicit,implcit", "Did you mean 'implicit'?"),
        ("model=implicit,mlp model.kappa=0.5,0.9", "'model.kappa' is a key of model=implicit"),
        ("seed=1,2 optimizer=adam,sgd optimizer.momentum=0.5", "is a key of optimizer=sgd"),
    ],
)
def test_what_some_jobs_cannot_be_composed_of_is_found_before_any_begins(
    idl: Idl, tmp_path: Path, typed: str, said: str
) -> None:
    answer = idl("train", "-m", *typed.split())
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1, answer.err
    assert not list(tmp_path.iterdir())


def test_two_sweeps_of_one_second_share_no_directory(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    # The second sweep finds what the first would have made, whatever the clock says.
    first = idl("train", "-m", *tiny, "seed=1,2")
    again = idl("train", "-m", *tiny, "seed=1,2")
    assert first.run != again.run
    assert len(jobs_of(first)) == len(jobs_of(again)) == 2


def test_a_sweep_is_gone_on_with(idl: Idl, tiny: list[str]) -> None:
    words = ["-m", *tiny, "seed=1,2", "hydra.sweep.dir=sweep"]
    first = idl("train", *words)
    assert first.code == 0, first.err
    taken = idl("train", *words)
    assert taken.code == 2
    assert "hydra.sweep.dir=sweep holds a sweep's jobs already" in taken.err
    assert taken.err.count("\n") == 1  # before any of its jobs began
    more = idl("train", *words, "trainer.resume=auto", "trainer.max_epochs=4")
    assert more.code == 0, more.err
    assert [job["epochs"] for job in jobs_of(more).values()] == [4, 4]


def test_a_signal_ends_the_sweep_not_only_its_job(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from idl_cli.processes.stop_signals import StopSignals

    def stop_in_the_first_job(self: StopSignals) -> bool:
        import signal

        self.received = signal.SIGTERM
        return True

    monkeypatch.setattr(StopSignals, "__call__", stop_in_the_first_job)
    answer = idl("train", "-m", *tiny, "seed=1,2")
    assert answer.code == 143
    assert {name: job["status"] for name, job in jobs_of(answer).items()} == {"0": "interrupted"}


def test_the_task_returns_what_a_sweeper_goes_by(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from idl_cli.commands import train as command

    returned = []
    real = command.train

    def spy(config: Any) -> float:
        returned.append(real(config))
        return returned[-1]

    spy.__module__ = real.__module__
    monkeypatch.setattr(command, "train", spy)
    answer = idl("train", *tiny, "trainer.monitor=accuracy")
    assert returned == [answer.summary["val"]["accuracy"]]
