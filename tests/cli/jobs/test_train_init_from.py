"""`model.init_from` in runs that were stopped: what they began with is not lost, nor in the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..conftest import Idl, Killed, StopAt, assert_same_run


@pytest.fixture
def fine(once: Idl, tiny: list[str]) -> list[str]:
    """Overrides of a training that begins with the run `source`, of a size of its own."""
    once("train", *tiny, "model.hidden_dim=7", "hydra.run.dir=source")
    return [*(word for word in tiny if "hidden_dim" not in word), "model.init_from=source"]


def test_the_same_command_goes_on_with_its_run(
    idl: Idl, fine: list[str], stop_at: StopAt, tmp_path: Path
) -> None:
    restart = ["train", *fine, "hydra.run.dir=run", "trainer.resume=auto"]
    stop_at(12)
    assert idl(*restart).code == 143
    stop_at(0)
    shutil.rmtree(tmp_path / "source" / "checkpoints")  # no longer needed
    answer = idl(*restart, "trainer.max_epochs=4")
    assert answer.code == 0, answer.err
    assert "going on after step 12" in answer.err


def test_what_is_gone_on_with_ends_as_if_never_stopped(
    idl: Idl, fine: list[str], stop_at: StopAt
) -> None:
    stop_at(12)
    idl("train", *fine, "hydra.run.dir=run", "trainer.resume=auto")
    stop_at(0)
    answer = idl("train", *fine, "hydra.run.dir=run", "trainer.resume=auto")
    assert answer.code == 0, answer.err
    assert_same_run(answer.run, idl("train", *fine, "hydra.run.dir=whole").run)


@pytest.mark.parametrize("again", [["trainer.resume=run"], ["auto"]])
def test_killed_before_the_first_checkpoint_it_begins_with_those_weights_again(
    idl: Idl, fine: list[str], stop_at: StopAt, tmp_path: Path, again: list[str]
) -> None:
    words = [*fine, "optimizer.lr=1e-20"]  # it ends with the weights that it begins with
    stop_at(2, kill=True)
    with pytest.raises(Killed):
        idl("train", *words, "hydra.run.dir=run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    stop_at(0)
    if again == ["auto"]:
        again = [*words, "hydra.run.dir=run", "trainer.resume=auto"]
    answer = idl("train", *again)
    assert answer.code == 0, answer.err
    assert "run has no checkpoint yet: it begins anew" in answer.err
    source = json.loads((tmp_path / "source" / "summary.json").read_text())
    assert answer.summary["test"] == source["test"]


def test_a_killed_job_of_a_sweep_begins_with_those_weights_again(
    idl: Idl, fine: list[str], stop_at: StopAt, tmp_path: Path
) -> None:
    words = ["train", "-m", *fine, "optimizer.lr=1e-20", "optimizer.beta1=0.8,0.9"]
    stop_at(30, kill=True)  # in the second job's third step
    with pytest.raises(Killed):
        idl(*words, "hydra.sweep.dir=sweep")
    stop_at(0)
    answer = idl(*words, "sweep.resume=sweep")
    assert answer.code == 0, answer.err
    assert "job 0 was complete" in answer.err
    jobs = [json.loads((tmp_path / "sweep" / n / "summary.json").read_text()) for n in "01"]
    assert jobs[0]["test"] == jobs[1]["test"]
    assert jobs[0]["parameters"] == jobs[1]["parameters"]
