"""Sweeps by other launchers and sweepers than Hydra's own: real processes, none lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from idl_cli.hydra_app.sweep_end import conclude_sweep
from idl_cli.hydra_app.sweep_jobs import HIGHER_IS_BETTER, note_refusal
from idl_cli.processes.stop_signals import PoolStop, SweepSignals
from idl_core.training.tasks import HIGHER_IS_BETTER as TOLD_BY_TASKS

from ..conftest import Idl, MakeRun, assert_same_run


def summaries(sweep: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/summary.json")}


def test_side_by_side_none_is_lost_or_doubled_and_what_failed_is_run_again(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", *tiny, "optimizer=sgd", "optimizer.lr=0.01,1e20", "seed=1,2"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    answer = idl("train", *words, *launcher)
    assert answer.code == 1, answer.err  # two of its jobs diverge
    jobs = summaries(tmp_path / "sweep")
    assert sorted(jobs) == ["0", "1", "2", "3"]
    assert [jobs[job]["seed"] for job in sorted(jobs)] == [1, 2, 1, 2]
    assert {job for job in jobs if jobs[job]["status"] == "failed"} == {"2", "3"}
    assert jobs["2"]["error"].startswith("non-finite loss")
    assert "job 2 failed" not in answer.err  # its own process has said so, on the same terminal
    assert len([line for line in answer.out.splitlines() if " completed " in line]) == 2
    alone = idl("train", *tiny, "optimizer=sgd", "optimizer.lr=0.01", "seed=2")
    assert_same_run(alone.run, tmp_path / "sweep" / "1")

    (tmp_path / "sweep" / "1" / "summary.json").unlink()  # as of one that was killed
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "0").iterdir()}
    again = idl("train", *words, "sweep.resume=sweep")
    assert again.code == 1
    assert again.err.count("was complete") == 1
    assert "job 1 done" in again.err
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "0").iterdir()
    } == before
    assert summaries(tmp_path / "sweep")["1"]["test"] == jobs["1"]["test"]


def test_other_words_do_not_go_on_with_a_sweep(idl: Idl, tiny: list[str], tmp_path: Path) -> None:
    words = ["-m", *tiny, "seed=1,2"]
    assert idl("train", *words, "hydra.sweep.dir=sweep").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*/[01]/*") if path.is_file()}
    answer = idl("train", "-m", *tiny, "seed=1,3", "sweep.resume=sweep")
    assert answer.code == 2
    assert "job 1 there was made with" in answer.err
    assert "give the same words in the same order" in answer.err
    rows = [line.split()[0] for line in answer.out.splitlines()]
    assert rows == ["job", "0", "sweep"]  # what is in job 1's place is not its result
    assert not (tmp_path / "sweep" / ".refused").exists()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*/[01]/*") if p.is_file()} == before


def test_a_job_refused_in_another_process_counts(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in ("sweep/0", "sweep/1"):
        make_run(job)
    sweep = tmp_path / "runs" / "sweep"
    note_refusal(sweep / "1", sweep, "job 1 there was made with others", 2)
    assert conclude_sweep(sweep, 0, [], "sweep.resume=it", said=False) == 2
    told = capsys.readouterr()
    assert "job 1 failed: job 1 there was made with others" in told.err
    assert [line.split()[0] for line in told.out.splitlines()] == ["job", "0", str(sweep)]
    assert conclude_sweep(sweep, 0, [], "sweep.resume=it", said=False) == 0  # counted once
    note_refusal(sweep / "1", sweep, "job 1 there was made with others", 2)
    capsys.readouterr()
    assert conclude_sweep(sweep, 0, [], "sweep.resume=it", said=True) == 2
    assert capsys.readouterr().err == ""


OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=1"]


def test_a_search_of_which_every_trial_fails_ends_in_its_table(idl: Idl, tiny: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hydra.sweeper.n_trials=2", "model.kappa=choice(1.5,1.6)"]
    answer = idl("train", "-m", *tiny, *OPTUNA, *words)
    assert answer.code == 2
    assert "idl: the search gave up: ValueError: No trials are completed yet." in answer.err
    assert [line.split()[0] for line in answer.out.splitlines()[:-1]] == ["job", "0", "1"]


def test_a_search_for_a_figure_that_is_better_when_higher(idl: Idl, tiny: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["train", "-m", *tiny, *OPTUNA, "optimizer.lr=choice(1e-9,1e-2)"]
    answer = idl(*words, "trainer.monitor=accuracy")
    assert answer.code == 0, answer.err
    found = yaml.safe_load((answer.run / "optimization_results.yaml").read_text())
    assert found["best_params"] == {"optimizer.lr": 1e-2}
    figures = [job["val"]["accuracy"] for job in summaries(answer.run).values()]
    assert min(figures) < found["best_value"] == max(figures)
    wrong = idl(*words, "hydra.sweeper.direction=maximize")
    assert wrong.code == 2
    assert "trainer.monitor=loss is found by minimize" in wrong.err
    assert set(HIGHER_IS_BETTER) == TOLD_BY_TASKS


def test_a_search_has_its_failed_trials_in_the_table(idl: Idl, tiny: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=1"]
    answer = idl("train", "-m", *tiny, *sweeper, "optimizer=sgd", "optimizer.lr=choice(0.1,1e20)")
    jobs = summaries(answer.run)
    assert sorted(jobs) == ["0", "1", "2", "3"]
    failed = {job for job in jobs if jobs[job]["status"] == "failed"}
    assert 0 < len(failed) < 4
    assert answer.code == 1
    table = {line.split()[0]: line for line in answer.out.splitlines()[1:5]}
    assert sorted(table) == sorted(jobs)
    for job, line in table.items():
        assert ("failed" in line) == (job in failed)


def test_a_preempted_job_is_queued_again_and_goes_on(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [*tiny, "trainer.max_epochs=60", "seed=7"]
    told: list[int] = []

    def preempt() -> None:
        metrics, deadline = tmp_path / "sweep" / "0" / "metrics.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and not told:
            time.sleep(0.02)
            if metrics.exists() and metrics.read_text().count("\n") > 10:
                for pid in processes(tmp_path, b"submitit.core._submit"):
                    os.kill(pid, signal.SIGUSR2)
                    told.append(pid)

    thread = threading.Thread(target=preempt)
    thread.start()
    launcher = ["hydra/launcher=submitit_local", "hydra.sweep.dir=sweep"]
    answer = idl("train", "-m", *words, *launcher)
    thread.join()
    assert len(told) == 1
    assert answer.code == 0, answer.err
    log = "".join(path.read_text() for path in tmp_path.glob("sweep/.submitit/*/*.err"))
    assert "stopped at step" in log
    assert "going on after step" in log
    alone = idl("train", *words, "trainer.checkpoint_seconds=100")
    assert_same_run(alone.run, tmp_path / "sweep" / "0")


def processes(folder: Path, name: bytes) -> list[int]:
    """Processes that were started in a folder, by a part of their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            here = Path(os.readlink(process / "cwd")) == folder
        except OSError:
            continue
        if name in command and here:
            found.append(int(process.name))
    return found


def test_a_pool_is_told_to_stop_through_its_parent(tmp_path: Path) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    (tmp_path / ".stopping").write_text("15")  # left by a sweep that was killed
    signals, job = SweepSignals(), PoolStop(tmp_path)
    signals.sweep = tmp_path
    with signals:
        assert not job()
        signal.raise_signal(signal.SIGINT)
        assert job()
        assert (job.exit_code, signals.exit_code) == (130, 130)
        time.sleep(0.3)  # two within a moment would be one
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not list(tmp_path.iterdir())
    assert {number: signal.getsignal(number) for number in handlers} == handlers
