"""Run directories of the first version are read, resumed and evaluated by this one.

data/earlier_runs/ was written by idl 0.1.0 before its command line was divided into rooms.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Idl

HERE = Path(__file__).parent / "data" / "earlier_runs"
THEN = "/home/somebody"  # where they were made


@pytest.fixture
def earlier(idl: Idl, tmp_path: Path) -> Path:
    """A copy of the runs that is ours to change, with the paths in it as they are here."""
    folder = tmp_path / "earlier"
    shutil.copytree(HERE, folder)
    for path in (*folder.rglob("*.yaml"), *folder.rglob("*.json")):
        path.write_text(path.read_text().replace(THEN, str(folder)))
    return folder


@pytest.mark.parametrize("name", ["digits", "spiky", "words", "sim", "sweep/1"])
def test_an_evaluation_finds_what_the_run_recorded(idl: Idl, earlier: Path, name: str) -> None:
    recorded = json.loads((earlier / name / "summary.json").read_text())["test"]
    answer = idl("eval", f"run={earlier / name}")
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == pytest.approx(recorded, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "longer", "steps"),
    [
        ("digits", "trainer.max_epochs=3", 18),
        ("spiky", "trainer.max_steps=8", 8),
        ("words", "trainer.max_steps=8", 8),
    ],
)
def test_a_run_is_gone_on_with(idl: Idl, earlier: Path, name: str, longer: str, steps: int) -> None:
    run = earlier / name
    before = (run / "metrics.jsonl").read_text().splitlines()
    answer = idl("train", f"trainer.resume={run}", longer)
    assert answer.code == 0, answer.err
    assert answer.summary["steps"] == steps
    after = (run / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in before if json.loads(line)["split"] != "test"]
    assert after[: len(kept)] == kept


def test_a_sweep_that_is_complete_is_not_run_again(idl: Idl, earlier: Path) -> None:
    words = ("model.hidden_dim=3", "trainer.max_epochs=1", "trainer.batch_size=256")
    sweep = earlier / "sweep"
    before = {path: path.read_bytes() for path in sweep.rglob("summary.json")}
    answer = idl("train", "-m", *words, "trainer.device=cpu", "seed=0,1", f"sweep.resume={sweep}")
    assert answer.code == 0, answer.err
    assert answer.err.count("was complete") == 2
    assert {path: path.read_bytes() for path in sweep.rglob("summary.json")} == before


def test_a_learned_model_is_fine_tuned_and_its_teacher_taught_from(idl: Idl, earlier: Path) -> None:
    short = ("trainer.max_epochs=null", "trainer.max_steps=2")
    tuned = idl("train", f"model.init_from={earlier / 'sim'}", *short, "optimizer.lr=1e-5")
    assert tuned.code == 0, tuned.err
    again = idl("sim", f"teacher={earlier / 'sim'}", "solver=least_square", "model.samples=50")
    assert again.code == 0, again.err
    recorded = json.loads((earlier / "sim" / "summary.json").read_text())
    assert again.summary["teacher"] == pytest.approx(recorded["teacher"], rel=1e-3)


def test_they_are_listed_compared_drawn_and_generated_from(idl: Idl, earlier: Path) -> None:
    listed = json.loads(idl("runs", str(earlier), "--json").out)
    assert {Path(run["run"]).name for run in listed} == {
        *("digits", "spiky", "words", "sim", "evaluated", "0", "1")
    }
    assert {run["status"] for run in listed} == {"completed"}
    by_name = {Path(run["run"]).name: run for run in listed}
    assert by_name["evaluated"]["model"] == "implicit"
    compared = idl("compare", str(earlier / "digits"), str(earlier / "spiky"))
    assert "model.implicit_hidden_dim" in compared.out
    assert idl("plot", f"run={earlier / 'spiky'}").code == 0
    assert (earlier / "spiky" / "figures" / "matrices.png").exists()
    text = idl("generate", f"run={earlier / 'words'}", "prompt=the", "max_new_tokens=5")
    assert len(text.out) == len("the") + 5 + 1
