"""`idl sim`: a teacher, its implicit model, and what both leave behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from idl_cli.display.progress import Screen
from idl_cli.display.sim_table import rounded_up
from idl_cli.record.saved_model import saved_blocks
from idl_core.training import CheckpointFolder

from ..conftest import Answer, Idl, Start, StopAt, with_other_inputs


@pytest.fixture
def small(arrays: Path) -> list[str]:
    """Overrides for a teacher of ten states that is trained in milliseconds."""
    return [
        "data=arrays",
        f"data.path={arrays}",
        "teacher.hidden_dims=[6,4]",
        "trainer.batch_size=8",
        "trainer.max_epochs=8",
        "optimizer.lr=0.02",
    ]


@pytest.fixture
def learned(once: Idl, small: list[str]) -> Answer:
    answer = once("sim", *small, "hydra.run.dir=learned")
    assert answer.code == 0, answer.err
    return answer


def test_it_imitates_its_teacher_and_records_what_it_proved(learned: Answer) -> None:
    summary = learned.summary
    assert (summary["command"], summary["status"]) == ("sim", "completed")
    sim = summary["sim"]
    assert set(sim) >= {
        "teacher_accuracy", "accuracy", "norm_inf_A", "sparsity", "state_mse", "output_mse",
        "objective", "duality_gap", "solve_s", "solver",
    }  # fmt: skip
    assert sim["accuracy"] == summary["test"]["accuracy"]
    # The teacher is scaled into the ball: nothing keeps the implicit model from being the same.
    assert sim["accuracy"] == sim["teacher_accuracy"] > 0.8
    assert sim["norm_inf_A"] <= 0.99 * (1 + 1e-6)
    assert sim["state_mse"] < 1e-6
    assert sim["worst_relative_gap"] <= 1e-5
    assert sim["solver"] == "ADMMSolver"
    assert summary["parameters"] == 10 * 10 + 10 * 6 + 3 * 10 + 3 * 6
    assert "‖A‖∞" in learned.out
    assert f"at most {rounded_up(sim['duality_gap'])} above the optimum" in learned.out
    assert f"{rounded_up(sim['worst_relative_gap'])} of max(its objective" in learned.out
    for name in ("matrices", "gap", "layers"):
        assert (learned.run / "figures" / f"{name}.png").stat().st_size > 5000
    lines = (learned.run / "metrics.jsonl").read_text().splitlines()
    splits = [json.loads(line)["split"] for line in lines]
    assert "train" in splits
    assert splits[-1] == "test"


def test_its_checkpoint_is_evaluated_and_drawn(idl: Idl, learned: Answer) -> None:
    answer = idl("eval", "run=learned")
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == pytest.approx(learned.summary["test"], abs=1e-5)
    assert idl("plot", "run=learned").code == 0
    saved = saved_blocks(learned.run)
    assert saved is not None
    zeros = {name: float((block == 0).mean()) for name, block in saved.blocks.items()}
    assert zeros == pytest.approx(learned.summary["sim"]["sparsity"])


def test_training_goes_on_from_it(idl: Idl, learned: Answer, arrays: Path) -> None:
    data = ["data=arrays", f"data.path={arrays}"]
    answer = idl("train", *data, "model.init_from=learned", "trainer.max_epochs=1",
                 "optimizer.lr=1e-9")  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == pytest.approx(learned.summary["test"], abs=1e-4)
    config = yaml.safe_load((answer.run / "config.yaml").read_text())
    assert config["model"]["hidden_dim"] == 10
    assert config["model"]["mitr"] > 1000  # rows on the bound converge slowly
    again = idl("train", *data, f"model.init_from={answer.run}", "trainer.max_epochs=1",
                "model.kappa=0.999")  # fmt: skip
    assert again.code == 0, again.err
    assert yaml.safe_load((again.run / "config.yaml").read_text())["model"]["kappa"] == 0.999


def test_other_data_are_seen_as_those_of_the_run_it_begins_from(
    idl: Idl, learned: Answer, arrays: Path, tmp_path: Path
) -> None:
    with_other_inputs(arrays, tmp_path / "shift.npz", 3, 5)
    other = ["data=arrays", "data.path=shift.npz"]
    answer = idl("train", *other, "model.init_from=learned", "trainer.max_epochs=1",
                 "optimizer.lr=1e-30", "hydra.run.dir=tuned")  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == pytest.approx(learned.summary["test"], abs=1e-4)
    assert idl("eval", "run=tuned").summary["test"] == answer.summary["test"]
    answer = idl("sim", "teacher=learned", *other)
    assert answer.code == 0, answer.err
    assert answer.summary["teacher"] == pytest.approx(learned.summary["teacher"], rel=1e-6)
    again = idl("eval", f"run={answer.run}", f"data.path={arrays}")
    assert again.summary["test"] == pytest.approx(answer.summary["test"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model.hidden_dim=7",), "model.hidden_dim=7"),
        (("model.activation=tanh",), "model.activation=tanh"),
        (("data=digits",), "data=digits does not fit"),
        (("model.init_from=nowhere",), "model.init_from=nowhere: there is no such folder"),
    ],
)
def test_what_does_not_fit_the_run_it_begins_from(
    idl: Idl, learned: Answer, arrays: Path, words: tuple[str, ...], told: str
) -> None:
    data = [] if "data=digits" in words else ["data=arrays", f"data.path={arrays}"]
    answer = idl("train", *data, "model.init_from=learned", *words)
    assert answer.code == 2
    assert told in answer.err


@pytest.mark.parametrize("solver", ["cvx", "least_square", "projected_gd_low_rank"])
def test_other_solvers_on_the_teacher_of_an_earlier_run(
    idl: Idl, learned: Answer, solver: str
) -> None:
    answer = idl("sim", "teacher=learned", f"solver={solver}")
    assert answer.code == 0, answer.err
    mine, theirs = answer.summary["sim"], learned.summary["sim"]
    assert mine["teacher_accuracy"] == theirs["teacher_accuracy"]
    assert mine["accuracy"] >= theirs["accuracy"] - 0.04
    assert not (answer.run / "teacher").exists()
    assert answer.summary["teacher"] == pytest.approx(learned.summary["teacher"], rel=1e-6)
    config = yaml.safe_load((answer.run / "config.yaml").read_text())
    assert config["data"]["name"] == "arrays"  # of the teacher's run, as none were typed
    assert "solving them takes up to" in learned.err
    assert "solving them takes up to" not in answer.err  # nobody has counted
    if solver == "least_square":
        assert "‖A‖∞ = " in answer.err


def test_ranks_of_torchrun_share_the_solve_of_one_teacher(
    start: Start, small: list[str], learned: Answer, tmp_path: Path
) -> None:
    words = ["solver=admm_multigpu", "solver.batch_feature_size=5", "hydra.run.dir=joined"]
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    of_all = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    ranks = [
        start("sim", *small, *words, RANK=rank, LOCAL_RANK=rank, **of_all) for rank in ("0", "1")
    ]
    first, second = (rank.ended() for rank in ranks)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out.splitlines()[-1] == "joined"
    assert "in each process" in first.err
    assert first.out.count("joined") == 2  # and how to go on from it
    assert not second.out
    sim = json.loads((tmp_path / "joined" / "summary.json").read_text())["sim"]
    theirs = learned.summary["sim"]
    assert sim["teacher_accuracy"] == theirs["teacher_accuracy"]
    assert sim["objective"] == pytest.approx(theirs["objective"], rel=1e-5)


def test_a_network_of_idl_train_is_a_teacher(idl: Idl, arrays: Path) -> None:
    trained = idl("train", "model=mlp", "model.hidden_dims=[5]", "data=arrays",
                  f"data.path={arrays}", "trainer.max_epochs=4", "hydra.run.dir=mlp")  # fmt: skip
    assert trained.code == 0, trained.err
    answer = idl("sim", "teacher=mlp/", "model.samples=20")
    assert answer.code == 0, answer.err
    assert "5 states, 6 inputs and 3 outputs of 20 samples" in answer.err
    assert answer.summary["sim"]["teacher_accuracy"] == trained.summary["test"]["accuracy"]
    implicit = idl("train", "data=arrays", f"data.path={arrays}", "model.hidden_dim=4",
                   "trainer.max_epochs=1", "hydra.run.dir=implicit")  # fmt: skip
    assert implicit.code == 0
    answer = idl("sim", "teacher=implicit/")
    assert answer.code == 2
    assert "model=implicit" in answer.err


def test_a_convolutional_teacher_of_pictures(idl: Idl) -> None:
    answer = idl("sim", "teacher=cnn", "teacher.channels=[2,3]", "trainer.max_epochs=2",
                 "model.samples=300")  # fmt: skip
    assert answer.code == 0, answer.err
    sim = answer.summary["sim"]
    assert sim["accuracy"] == pytest.approx(sim["teacher_accuracy"], abs=0.02)


@pytest.mark.parametrize("bound", [2.71e-7, 4.9e-6, 9.96e-6, 1e-5, 0.0, 123.0, 5e-324])
def test_a_bound_that_is_shown_holds(bound: float) -> None:
    shown = float(rounded_up(bound))
    assert bound <= shown <= 1.1 * bound or bound == 5e-324 <= shown
    assert len(rounded_up(bound).split("e")[0].replace(".", "")) <= 2


def test_a_picture_that_cannot_be_written_costs_no_figures(
    idl: Idl, learned: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(figure: object, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("idl_cli.display.sim_figures.save", full)
    answer = idl("sim", "teacher=learned")
    assert answer.code == 0, answer.err
    assert "figures not written: No space left on device" in answer.err
    assert answer.summary["test"] == pytest.approx(learned.summary["test"], rel=1e-4)


def test_half_precision_is_for_the_teacher(idl: Idl, learned: Answer) -> None:
    answer = idl("sim", "teacher=learned", "trainer.precision=bf16")
    assert answer.code == 0, answer.err
    sim = answer.summary["sim"]
    assert sim["accuracy"] == pytest.approx(sim["teacher_accuracy"], abs=0.1)


def test_a_sweep_ends_in_one_table_and_is_gone_on_with(
    idl: Idl, learned: Answer, tmp_path: Path
) -> None:
    words = ["sim", "-m", "teacher=learned", "solver.lambda_z=1e-6,10"]
    answer = idl(*words, "hydra.sweep.dir=sweep")
    assert answer.code == 0, answer.err
    header, best, worst = answer.out.splitlines()[:3]
    assert "val loss" in header  # what is chosen by is not what is reported
    assert "test accuracy" in header
    assert [best.split()[1], worst.split()[1]] == ["1e-06", "10"]
    (tmp_path / "sweep" / "1" / "summary.json").unlink()  # killed, and queued again
    again = idl(*words, "sweep.resume=sweep")
    assert again.code == 0, again.err
    assert again.err.count("was complete") == 1
    assert again.out.splitlines()[1].split()[:3] == best.split()[:3]
    other = idl("sim", "-m", "teacher=learned", "solver.lambda_z=1e-6,1", "sweep.resume=sweep")
    assert other.code == 2
    assert "job 1 there was made with" in other.err
    train = idl("train", "-m", "seed=0,1", "sweep.resume=sweep")
    assert train.code == 2


@pytest.mark.parametrize("solver", ["admm", "admm_multigpu"])
def test_stopped_while_solving_and_gone_on_with(
    idl: Idl, small: list[str], monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    on_solve = Screen.on_solve

    def interrupt(self: Screen, progress: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        on_solve(self, progress)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Screen, "on_solve", interrupt)
        answer = idl("sim", *small, "hydra.run.dir=stopped", f"solver={solver}")
    assert answer.code == 143
    assert "idl sim trainer.resume=stopped" in answer.err
    assert json.loads(Path("stopped/summary.json").read_text())["status"] == "interrupted"
    steps = json.loads(Path("stopped/summary.json").read_text())["steps"]
    answer = idl("sim", "trainer.resume=stopped")
    assert answer.code == 0, answer.err
    assert answer.run == Path("stopped")
    assert answer.summary["steps"] == steps  # the teacher was complete
    assert "loss" in answer.summary["test"]


def test_what_is_typed_for_a_run_that_is_gone_on_with_counts_or_is_refused(
    idl: Idl, learned: Answer, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved.npz"
    moved.write_bytes(arrays.read_bytes())
    first = idl("sim", "teacher=learned", "data=arrays", "data.path=moved.npz",
                "hydra.run.dir=mine")  # fmt: skip
    assert first.code == 0, first.err
    monkeypatch.chdir(tmp_path.parent)  # paths are good from any folder
    words = ["sim", f"trainer.resume={tmp_path / 'mine'}"]
    again = idl(*words, "solver=least_square", "model.samples=30")
    assert again.code == 0, again.err
    assert again.summary["sim"]["solver"] == "LeastSquareSolver"
    assert "no checkpoint: ‖A‖∞" in again.err  # of so few samples; nor is the earlier solve's left
    assert not (tmp_path / "mine" / "figures" / "gap.png").exists()
    assert idl("eval", f"run={tmp_path / 'mine'}").code == 2
    config = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    assert config["data"]["path"] == str(moved)  # not that of the teacher's run
    assert config["teacher"]["run"] == str(tmp_path / "learned")
    assert config["model"]["samples"] == 30
    assert config["solver"]["name"] == "least_square"
    summary = (tmp_path / "mine" / "summary.json").read_text()
    for word in ("seed=3", "optimizer.lr=0.5", "teacher=mlp"):
        refused = idl(*words, word)
        assert refused.code == 2
        assert "resuming cannot change it" in refused.err
    assert (tmp_path / "mine" / "summary.json").read_text() == summary
    wrong = idl("train", f"trainer.resume={tmp_path / 'mine'}")
    assert wrong.code == 2
    assert "is a run of idl sim, not of idl train" in wrong.err
    auto = ["trainer.resume=auto", f"hydra.run.dir={tmp_path / 'mine'}"]
    assert idl("sim", *auto, "seed=3").code == 2


def test_a_teacher_that_was_stopped_goes_on_with_its_own_data_alone(
    idl: Idl, small: list[str], arrays: Path, tmp_path: Path, stop_at: StopAt
) -> None:
    data = tmp_path / "mine.npz"
    data.write_bytes(arrays.read_bytes())
    words = [f"data.path={data}" if word.startswith("data.path") else word for word in small]
    stop_at(40)
    stopped = idl("sim", *words, "hydra.run.dir=stopped", "trainer.checkpoint_seconds=0")
    assert stopped.code == 143
    assert "idl sim trainer.resume=stopped" in stopped.err
    teacher = CheckpointFolder(tmp_path / "stopped" / "teacher")
    first = teacher.load()[0]
    with_other_inputs(arrays, data, 3, 5)
    refused = idl("sim", "trainer.resume=stopped")
    assert refused.code == 2
    assert "its content is not what 'stopped' was trained on" in refused.err
    data.write_bytes(arrays.read_bytes())
    assert idl("sim", "trainer.resume=stopped").code == 0
    last = teacher.load()[0]
    assert first is not None
    assert last is not None
    assert last.step > first.step
    assert torch.equal(last.tensors["data.mean"], first.tensors["data.mean"])


def test_a_job_of_a_pool_stops_while_solving_where_the_sweep_is_told_to(
    idl: Idl, learned: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Screen, progress: object) -> None:
        Path("sweep/.stopping").write_text("15")

    monkeypatch.setattr(Screen, "on_solve", stop)
    monkeypatch.setattr("idl_cli.hydra_app.hydra_job.is_pool", lambda launcher: True)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        idl("sim", "-m", "teacher=learned", "seed=1,2", "hydra.sweep.dir=sweep")
    finally:  # what a process of a pool ignores for good
        for number, handler in handlers.items():
            signal.signal(number, handler)
    summaries = list(Path("sweep").glob("*/summary.json"))
    assert [path.parent.name for path in summaries] == ["0"]
    assert json.loads(summaries[0].read_text())["exit_code"] == 143


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("teacher=cnm",), "Did you mean 'cnn'?"),
        (("teacher=runs/nowhere",), "teacher=runs/nowhere: there is no such folder"),
        (("teacher=cnn",), "which is no picture"),
        (("solver=admn",), "Did you mean 'admm'?"),
        (("solver.lamda_z=1",), "Did you mean 'solver.lambda_z'?"),
        (("solver.lambda_z=-1",), "solver.lambda_z=-1: it must be at least 0"),
        (
            ("solver=projected_gd_low_rank", "solver.rank=99"),
            "solver.rank=99: at most the teacher's number of states, 10",
        ),
        (("model.kappa=1",), "model.kappa=1"),
        (("model.samples=0",), "model.samples=0"),
        (("data=spiky",), "idl: data=spiky: choose from"),
        (("trainer.devices=2",), "trainer.devices=2: a teacher is trained on one device"),
        (("trainer.resume=nowhere",), "trainer.resume=nowhere: there is no such folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    idl: Idl, small: list[str], words: tuple[str, ...], told: str
) -> None:
    keep = [word for word in small if "cnn" not in words[0] or not word.startswith("teacher.")]
    keep = [word for word in keep if "spiky" not in words[0] or not word.startswith("data")]
    if "/" in words[0] or words[0] == "teacher=cnm":
        keep = [word for word in keep if not word.startswith("teacher.")]
    answer = idl("sim", *keep, *words)
    assert answer.code == 2
    assert told in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err


def test_states_that_do_not_fit_are_refused_before_they_are_made(
    idl: Idl, learned: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idl_core.sim.memory.available_bytes", lambda device: 1000)
    answer = idl("sim", "teacher=learned")
    assert answer.code == 2
    assert "GiB free" in answer.err.splitlines()[-1]
    assert "model.samples" in answer.err.splitlines()[-1]


def test_an_ill_posed_answer_is_told_and_leaves_no_checkpoint(
    idl: Idl, arrays: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    y = (3 * np.abs(x[:, :2]) - 1).astype(np.float32)
    np.savez(tmp_path / "r.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    answer = idl("sim", "data=arrays", "data.path=r.npz", "teacher.hidden_dims=[20,20]",
                 "trainer.max_epochs=60", "optimizer.lr=0.05", "solver=least_square",
                 "model.rescale=false")  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.summary["sim"]["norm_inf_A"] > 1.5
    assert "no checkpoint: ‖A‖∞" in answer.err
    assert not (answer.run / "checkpoints").exists()
    assert answer.summary["sim"]["accuracy"] is None  # of numbers there is none
    assert torch.isfinite(torch.tensor(answer.summary["test"]["loss"]))
    assert idl("eval", f"run={answer.run}").code == 2
