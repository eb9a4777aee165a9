"""What does not fit in memory is refused in one line, before any of it is allocated."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from idl_cli.config import build_model as building
from idl_cli.processes.devices import workers_note
from idl_cli.processes.ranks import Ranks
from idl_core.models.gpt import _draw

from ..conftest import Idl, write_run


@pytest.fixture(autouse=True)
def gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has 4 GiB free."""
    for place in ("idl_core.sim.memory", "idl_cli.config.build_model"):
        monkeypatch.setattr(f"{place}.available_bytes", lambda device: 4 * 2**30)


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("train data=digits model.hidden_dim=100000", "model.hidden_dim=100000"),
        ("train data=digits model.hidden_dim=100000000000000", "model.hidden_dim=1000"),
        ("train data=pydoc model=gpt model.n_embd=10000000", "model.n_embd=10000000"),
        ("train data=pydoc model=gpt model.n_layer=100000000", "model.n_layer=100000000"),
        ("train data=spiky model=lstm model.hidden_dim=1000000", "model.hidden_dim=1000000"),
        ("train data=digits model=mlp model.hidden_dims=[99,500000,9999]", "model.hidden_dims=[99"),
        ("sim data=digits teacher.hidden_dims=[200000]", "a teacher of 200,000 states"),
    ],
)
def test_a_model_that_does_not_fit(idl: Idl, tmp_path: Path, typed: str, key: str) -> None:
    answer = idl(*typed.split())
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith(f"idl: {key}")
    assert answer.err.count("\n") <= 2, answer.err
    assert not list(tmp_path.rglob("summary.json"))


@pytest.mark.parametrize("command", ["train", "plot"])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate "
                      "memory: you tried to allocate 40000000000 bytes."), "for 37.3 GiB at once"),
        (MemoryError(), "out of memory: lower"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "20.00 GiB"),
    ],
)  # fmt: skip
def test_an_allocation_that_fails(
    idl: Idl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, error: Exception,
    says: str,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise error

    place = "jobs.train.set_up_training" if command == "train" else "commands.plot._draw_curves"
    monkeypatch.setattr(f"idl_cli.{place}", fail)
    write_run(tmp_path / "run")
    answer = idl(command, *(["run=run"] if command == "plot" else ["model=mlp"]))
    assert answer.code == 2
    assert "out of memory" in answer.err
    assert says in answer.err
    assert answer.err.count("\n") == 1, answer.err


def test_counting_draws_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from idl_cli.config.model_options import MLPConfig

    def model(config: object, dataset: object) -> torch.nn.Module:
        return torch.nn.Linear(30, 20)

    monkeypatch.setitem(building.MODELS, MLPConfig, model)
    large = MLPConfig(hidden_dims=(5000,))
    torch.manual_seed(3)
    counted = building.build_model(large, None)  # type: ignore[arg-type]
    torch.manual_seed(3)
    assert torch.equal(counted.weight, torch.nn.Linear(30, 20).weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-45, 5e-324])
def test_the_coldest_temperatures_take_the_best(temperature: float) -> None:
    scores = torch.tensor([[900.0, 901.0, -5.0]])
    draws = [_draw(scores, temperature, top_k, torch.Generator()) for top_k in (None, 2)]
    assert [int(draw) for draw in draws] == [1, 1]


def test_a_low_rank_beyond_the_states_is_refused_before_the_teacher_trains(
    idl: Idl, arrays: Path, tmp_path: Path
) -> None:
    words = ["data=arrays", f"data.path={arrays}", "teacher.hidden_dims=[3]"]
    answer = idl("sim", *words, "solver=projected_gd_low_rank", "solver.rank=4")
    assert answer.code == 2
    assert answer.err == "idl: solver.rank=4: at most the teacher's number of states, 3\n"
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(("terminal", "alone"), [(True, True), (False, False)])
def test_a_shell_of_srun_is_no_rank(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, alone: bool
) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_PTY_PORT": "41000"}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    isatty: Callable[[int], bool] = lambda descriptor: terminal  # noqa: E731
    monkeypatch.setattr(os, "isatty", isatty)
    assert (Ranks.of_environment() is None) == alone


def test_processes_in_place_of_gpus_are_said() -> None:
    said = workers_note([torch.device("cpu")] * 4)
    assert said is not None
    assert said.startswith("trainer.devices=4: on the CPU")
    assert workers_note([torch.device("cpu")]) is None
    assert workers_note([torch.device("cuda", 0), torch.device("cuda", 1)]) is None


def test_a_database_that_optuna_cannot_use(
    idl: Idl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    majors = {"optuna": 2, "sqlalchemy": 2}
    monkeypatch.setattr("idl_cli.hydra_app.plugins._major", majors.__getitem__)
    words = ["hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///x.db", "seed=1,2"]
    answer = idl("train", "-m", *words)
    assert answer.code == 2
    assert answer.err.startswith("idl: hydra.sweeper.storage=sqlite:///x.db: Optuna 2 cannot use")
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
