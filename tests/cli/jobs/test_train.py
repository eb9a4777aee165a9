"""`idl train`: what it leaves behind and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.core.config_store import ConfigStore

from idl_cli.record.run_directory import RunDirectory
from idl_core.training import CheckpointFolder

from ..conftest import Answer, Idl

SUMMARY_KEYS = {
    "status", "command", "error", "run_dir", "seed", "versions", "device", "git_commit",
    "parameters", "wall_s", "epochs", "steps", "train", "val", "test",
}  # fmt: skip


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_run_directory_is_what_design_says(idl: Idl, tiny: list[str], tmp_path: Path) -> None:
    answer = idl("train", *tiny, "seed=3")
    assert answer.code == 0, answer.err
    run = answer.run
    assert run.parent == Path("runs/train")
    assert run.name.endswith("_implicit_arrays")
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "overrides.yaml", "data.json", "metrics.jsonl", "checkpoints", "figures",
        "summary.json",
    }  # fmt: skip
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "best.safetensors", "best_before.safetensors", "last.safetensors", "previous.safetensors",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]  # and nothing elsewhere

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["hidden_dim"] == 5
    assert config["optimizer"]["lr"] == pytest.approx(5e-3)
    assert config["seed"] == 3
    assert yaml.safe_load((run / "overrides.yaml").read_text()) == [*tiny, "seed=3"]

    summary = answer.summary
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["status"] == "completed"
    assert summary["command"] == "train"
    assert summary["error"] is None
    assert Path(summary["run_dir"]) == run.absolute()
    assert (summary["seed"], summary["epochs"], summary["steps"]) == (3, 3, 27)
    assert summary["parameters"] == 5 * 5 + 5 * 6 + 3 * 5 + 3 * 6
    assert summary["versions"].keys() >= {"idl", "torch", "python"}
    for split in ("train", "val", "test"):
        assert summary[split].keys() == {"loss", "accuracy"}


def test_metrics_hold_every_report(idl: Idl, tiny: list[str]) -> None:
    answer = idl("train", *tiny)
    lines = lines_of(answer.run)
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == [4, 8, 9, 12, 16, 18, 20, 24, 27]
    assert [line["epoch"] for line in train] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(line["forward_iterations"] >= 1 for line in train)
    assert all(line["lr"] == pytest.approx(5e-3) for line in train)
    val = [line for line in lines if line["split"] == "val"]
    assert [line["step"] for line in val] == [9, 18, 27]
    best = min(line["loss"] for line in val)
    assert answer.summary["val"]["loss"] == best
    test = [line for line in lines if line["split"] == "test"]
    assert len(test) == 1  # touched once, at the end
    assert {key: test[0][key] for key in ("loss", "accuracy")} == answer.summary["test"]


def test_same_seed_same_figures_another_seed_others(idl: Idl, tiny: list[str]) -> None:
    runs = [idl("train", *tiny, f"seed={seed}") for seed in (1, 1, 2)]
    first, again, other = (lines_of(answer.run) for answer in runs)
    assert first == again
    assert first != other


def test_the_screen_of_a_pipe_is_plain_and_ends_with_the_directory(
    idl: Idl, tiny: list[str]
) -> None:
    answer = idl("train", *tiny)
    assert "\x1b" not in answer.out + answer.err
    table = answer.out.splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["train", "val", "test"]
    assert f"{answer.summary['test']['accuracy']:.4f}" in table[3]
    assert answer.run.is_dir()
    progress = [line for line in answer.err.splitlines() if line.startswith("epoch")]
    assert "epoch 3/3" in progress[-1]
    assert "loss" in progress[-1]
    assert "iterations" in progress[-1]
    assert "samples/s" in progress[-1]


def test_without_validation_the_last_weights_are_tested(idl: Idl, tiny: list[str]) -> None:
    answer = idl("train", *tiny, "data.val_fraction=0")
    assert answer.code == 0, answer.err
    summary = answer.summary
    assert summary["val"] == {}
    assert summary["best_step"] == summary["steps"] == 30
    assert not (answer.run / "checkpoints" / "best.safetensors").exists()


def test_regression_from_a_relative_path(idl: Idl, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 4)).astype(np.float32)
    y = (x @ np.array([[1.0, -2.0], [0.5, 0], [0, 1], [3, 1]])).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    answer = idl(
        "train", "data=arrays", "data.path=mine.npz", "model=mlp", "model.hidden_dims=[8,8]",
        "trainer.batch_size=8", "trainer.max_epochs=60", "trainer.monitor=r2", "optimizer=adamw",
        "optimizer.lr=0.02", "scheduler=cosine", "trainer.grad_clip=1", "data.val_fraction=0.2",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.summary["test"].keys() == {"loss", "mse", "mae", "mape", "r2"}
    assert answer.summary["test"]["r2"] > 0.9


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=sgd", "optimizer.nesterov=true", "scheduler=step", "scheduler.every_epochs=1"],
        ["model.wellposed=triu", "model.activation=gelu", "scheduler.warmup_steps=5"],
        ["model.is_low_rank=true", "model.rank=2", "model.bias=true", "model.no_D=true"],
        ["model.wellposed=none", "model.activation=tanh", "trainer.precision=64"],
        ["model.projection=global", "trainer.precision=bf16", "trainer.eval_every=5"],
        ["trainer=debug"],
    ],
)
def test_every_choice_can_be_trained(idl: Idl, tiny: list[str], overrides: list[str]) -> None:
    answer = idl("train", *tiny, *overrides)
    assert answer.code == 0, answer.err
    assert 0 < answer.summary["test"]["loss"] < 2


def test_early_stopping(idl: Idl, tiny: list[str]) -> None:
    answer = idl("train", *tiny, "trainer.max_epochs=300", "trainer.patience=2", "optimizer.lr=0.3")
    assert answer.code == 0, answer.err
    assert answer.summary["stopped_early"]
    assert answer.summary["epochs"] < 300


def test_a_chosen_directory_that_holds_a_run_is_left_alone(idl: Idl, tiny: list[str]) -> None:
    name = "hydra.run.dir=same"
    first = idl("train", *tiny, name)
    before = (first.run / "summary.json").read_bytes()
    second = idl("train", *tiny, name)
    assert second.code == 2  # the user's own choice is not changed silently
    assert "holds a run already" in second.err
    assert (first.run / "summary.json").read_bytes() == before


def test_of_many_claims_at_once_each_gets_its_own(tmp_path: Path) -> None:
    def claim(_: int) -> str:
        directory = RunDirectory.claim(tmp_path / "runs" / "now", may_rename=True)
        directory.release()
        return directory.path.name

    with ThreadPoolExecutor(20) as pool:
        names = list(pool.map(claim, range(60)))
    assert sorted(names) == sorted(["now", *(f"now_{number}" for number in range(2, 61))])


def test_a_run_directory_may_hold_other_things(idl: Idl, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    answer = idl("train", *tiny, "hydra.run.dir=mine")
    assert answer.code == 0, answer.err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_non_finite_loss_fails_the_run_and_keeps_the_best(idl: Idl, tiny: list[str]) -> None:
    small = [word for word in tiny if "hidden_dim" not in word]
    answer = idl("train", *small, "model=mlp", "optimizer=sgd", "optimizer.lr=1e20")
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert "non-finite loss" in answer.err.splitlines()[-1]
    assert answer.summary["status"] == "failed"
    assert "non-finite loss" in answer.summary["error"]


def test_a_bug_of_ours_is_a_traceback_and_a_failed_summary(
    idl: Idl, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("idl_cli.jobs.training.fit_and_test.evaluate", bug)
    with pytest.raises(ZeroDivisionError):
        idl("train", *tiny, "hydra.run.dir=broken")
    summary = json.loads((tmp_path / "broken" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"] == "ZeroDivisionError: ours"
    assert summary["steps"] == 27
    assert CheckpointFolder(tmp_path / "broken" / "checkpoints").load()[0] is not None


def test_solver_warnings_are_said_once_and_counted(idl: Idl, tiny: list[str]) -> None:
    answer = idl("train", *tiny, "model.mitr=1", "model.grad_mitr=1")
    assert answer.code == 0, answer.err
    assert answer.err.count("did not converge") == 1
    assert answer.summary["solver_warnings"] > 10
    assert lines_of(answer.run)[0]["not_converged"] > 0


def test_help_names_groups_and_choices(idl: Idl) -> None:
    answer = idl("train", "--help")
    assert answer.code == 0
    for text in ("model: attention, cnn, gpt, gru, implicit, ", "optimizer: adam, adamw, sgd",
                 "experiment: ", "idl train -m model.hidden_dim=50,100"):  # fmt: skip
        assert text in answer.out
    assert "hydra/" not in answer.out.partition("examples:")[0]


def test_help_copies_no_schemas(idl: Idl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is most of what it would take: it looks for each group's files."""

    def refuse(store: ConfigStore, memo: object) -> None:
        raise AssertionError("it was copied")

    monkeypatch.setattr(ConfigStore, "__deepcopy__", refuse, raising=False)
    assert idl("train", "--help").code == 0


def test_cfg_shows_the_configuration_and_runs_nothing(idl: Idl, tmp_path: Path) -> None:
    answer = idl("train", "--cfg", "job", "experiment=cifar10_implicit")
    assert answer.code == 0
    config = yaml.safe_load(answer.out)
    assert (config["model"]["hidden_dim"], config["trainer"]["batch_size"]) == (300, 100)
    assert list(tmp_path.iterdir()) == []


def test_more_yaml_from_the_users_own_folder(idl: Idl, tiny: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "wide.yaml").write_text("# @package _global_\nmodel:\n  hidden_dim: 7\n")
    answer = idl("train", "--config-dir", "mine", *[w for w in tiny if "hidden_dim" not in w],
                 "experiment=wide")  # fmt: skip
    assert answer.code == 0, answer.err
    assert yaml.safe_load((answer.run / "config.yaml").read_text())["model"]["hidden_dim"] == 7


def test_the_default_reaches_096_on_digits(tmp_path: Path) -> None:
    """As a user types it: a process of its own, no arguments, an empty folder. It loads only what
    it uses: each of these is most of a second, torch._dynamo two."""
    program = (
        "import sys; from idl_cli.main import main; code = main(['train']);"
        "slow = {'torch._dynamo', 'sklearn', 'torchvision', 'matplotlib', 'wandb', 'cvxpy'};"
        "assert not slow & set(sys.modules), slow & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    answer = Answer(done.returncode, done.stdout, done.stderr)
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / answer.run / "summary.json").read_text())
    assert summary["test"]["accuracy"] >= 0.96
