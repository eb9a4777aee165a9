"""Stopping and going on: by signals, after damage, with changes that are allowed and not."""

from __future__ import annotations

import json
import math
import os
import pty
import select
import shlex
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from idl_cli.main import main
from idl_cli.processes.stop_signals import StopSignals
from idl_cli.typed_words import hydra_word, typed_word
from idl_core.training import CheckpointFolder

from ..conftest import Apart, Idl, Killed, Start, StopAt, assert_same_run


def stop_when(run: Path, text: str, process: Apart, number: int) -> None:
    """Send a signal once metrics.jsonl holds a text."""
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and text in metrics.read_text()):
        assert process.is_alive(), process.ended()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_by_a_signal_and_resumed_is_as_never_stopped(
    idl: Idl, start: Start, tiny: list[str], tmp_path: Path, number: int, code: int
) -> None:
    process = start("train", *tiny, "trainer.max_epochs=400", "hydra.run.dir=stopped")
    stop_when(tmp_path / "stopped", '"epoch": 7,', process, number)
    stopped = process.ended()
    assert stopped.code == code, stopped.err
    if number != signal.SIGKILL:
        assert stopped.out.splitlines()[-1] == "stopped"
        assert "idl train trainer.resume=stopped" in stopped.err
        summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        assert summary["test"] == {}

    last, _, problems = CheckpointFolder(tmp_path / "stopped" / "checkpoints").load()
    assert last is not None
    assert not problems
    end = f"trainer.max_epochs={last.state['progress']['epoch'] + 2}"
    resumed = idl("train", "trainer.resume=stopped", end)
    assert resumed.code == 0, resumed.err
    assert resumed.run == Path("stopped")
    assert_same_run(idl("train", *tiny, end, "hydra.run.dir=whole").run, resumed.run)


def test_an_interrupted_process_is_resumed_in_its_own_directory(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    short = idl("train", *tiny, "hydra.run.dir=run")
    longer = idl("train", "trainer.resume=run", "trainer.max_epochs=5")
    assert longer.code == 0, longer.err
    assert longer.run == short.run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert longer.summary["epochs"] == 5
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 5
    assert config["trainer"]["resume"] is None
    overrides = yaml.safe_load((tmp_path / "run" / "overrides.yaml").read_text())
    assert overrides == [*tiny, "trainer.max_epochs=5"]
    whole = idl("train", *tiny, "trainer.max_epochs=5", "hydra.run.dir=whole")
    assert_same_run(longer.run, whole.run)


def test_resuming_a_complete_run_changes_nothing(idl: Idl, tiny: list[str]) -> None:
    first = idl("train", *tiny)
    summary = first.summary
    again = idl("train", f"trainer.resume={first.run}")
    assert again.code == 0, again.err
    for key in ("status", "epochs", "steps", "train", "val", "test"):
        assert again.summary[key] == summary[key]
    for split in ("train", "val"):
        assert list(again.summary[split]) == list(again.summary["test"])
    metrics = (first.run / "metrics.jsonl").read_text()
    assert metrics.count('"split": "test"') == 1


def test_auto_goes_on_if_there_is_something_to_go_on_with(idl: Idl, tiny: list[str]) -> None:
    words = [*tiny, "hydra.run.dir=here", "trainer.resume=auto"]
    first = idl("train", *words)
    assert first.code == 0, first.err
    assert "going on" not in first.err
    second = idl("train", *words, "trainer.max_epochs=4")
    assert second.code == 0, second.err
    assert "going on after step 27 of 36" in second.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model.hidden_dim=6", "model.hidden_dim=6: the run was made with 5"),
        ("model=mlp", "idl: model=mlp: the run was made with implicit"),
        ("seed=9", "seed=9: the run was made with 0"),
        ("optimizer.lr=1", "optimizer.lr=1.0"),
        ("optimizer.lr=1", "one that begins with its weights: idl train model.init_from=run"),
        ("trainer.batch_size=16", "trainer.batch_size=16"),
        ("data=digits", "idl: data=digits: the run was made with arrays"),
        ("experiment=mnist_implicit", "leave experiment= out"),
    ],
)
def test_what_resuming_cannot_change(
    idl: Idl, once: Idl, tiny: list[str], typed: str, said: str, tmp_path: Path
) -> None:
    once("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    answer = idl("train", "trainer.resume=run", typed)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    whole = idl("train", *tiny, "hydra.run.dir=whole")
    idl("train", *tiny, "hydra.run.dir=run")
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-7])
    answer = idl("train", "trainer.resume=run")
    assert answer.code == 0, answer.err
    assert "warning: checkpoint" in answer.err
    assert "last.safetensors' is damaged" in answer.err
    assert_same_run(whole.run, answer.run)

    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"nothing")
    answer = idl("train", "trainer.resume=run")
    assert answer.code == 2
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged"),
        ("model: {_target_: os.system}", "model"),
        ("just a word", "group of settings"),
        (None, "_target_=os.system"),
    ],
)
def test_a_configuration_from_elsewhere_is_checked(
    idl: Idl, once: Idl, tiny: list[str], tmp_path: Path, text: str | None, said: str
) -> None:
    once("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    path = tmp_path / "run" / "config.yaml"
    if text is None:
        values: dict[str, Any] = yaml.safe_load(path.read_text())
        values["data"]["_target_"] = "os.system"
        text = yaml.safe_dump(values)
    path.write_text(text)
    answer = idl("train", "trainer.resume=run")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_a_run_in_use_is_left_alone(idl: Idl, once: Idl, tiny: list[str], tmp_path: Path) -> None:
    from idl_cli.record.run_directory import RunDirectory

    once("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    holder = RunDirectory(tmp_path / "run")
    answer = idl("train", "trainer.resume=run")
    assert answer.code == 2
    assert "another process is working" in answer.err
    holder.release()
    assert idl("train", "trainer.resume=run").code == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGUSR1, 143),
        (signal.SIGHUP, 129),
    ],
)
def test_a_signal_is_a_request_and_a_second_ctrl_c_is_not(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        assert stop.exit_code == code
        if number == signal.SIGINT:
            assert "Ctrl-C again stops at once" in capfd.readouterr().err
            signal.raise_signal(number)  # at once: the same press, passed on by another program
            time.sleep(0.3)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_ctrl_c_saves_and_says_how_to_go_on(
    idl: Idl, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def press(self: StopSignals) -> bool:
        asked.append(1)
        if len(asked) == 14:
            signal.raise_signal(signal.SIGINT)
        return self.received is not None

    monkeypatch.setattr(StopSignals, "__call__", press)
    answer = idl("train", *tiny, "hydra.run.dir=run")
    assert answer.code == 130
    assert answer.out == "run\n"
    assert "idl train trainer.resume=run" in answer.err
    assert (answer.summary["status"], answer.summary["steps"]) == ("interrupted", 14)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert_same_run(
        idl("train", "trainer.resume=run").run, idl("train", *tiny, "hydra.run.dir=whole").run
    )


def test_the_second_ctrl_c_stops_at_once_and_is_recorded(
    idl: Idl, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: StopSignals) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(StopSignals, "__call__", interrupt)
    answer = idl("train", *tiny, "hydra.run.dir=run")
    assert answer.code == 130
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"


def test_a_closed_terminal_is_a_request_to_stop(tiny: list[str], tmp_path: Path) -> None:
    words = [*tiny, "trainer.max_epochs=4000", "hydra.run.dir=run"]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.environ.pop("CI", None)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os._exit(main(("train", *words)))
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and '"epoch": 7,' in metrics.read_text()):
        assert time.monotonic() < deadline
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)  # a full terminal would hold the run up
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("interrupted", 129)
    last, _, _ = CheckpointFolder(tmp_path / "run" / "checkpoints").load()
    assert last is not None
    assert last.step == summary["steps"] > 0


def test_under_nohup_a_closed_terminal_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_an_earlier_process_told_of_its_end_is_not_left_standing(
    idl: Idl, once: Idl, tiny: list[str], stop_at: StopAt, tmp_path: Path
) -> None:
    once("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    stop_at(3, kill=True)
    with pytest.raises(Killed):
        idl("train", "trainer.resume=run", "trainer.max_epochs=5")
    stop_at(0)
    (run,) = json.loads(idl("runs", ".", "--json").out)
    assert run["status"] == "unfinished"
    assert "test" not in run
    assert idl("train", "trainer.resume=run").summary["epochs"] == 5


def files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_complete_record_outlives_its_checkpoints(
    idl: Idl, once: Idl, tiny: list[str], tmp_path: Path
) -> None:
    once("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    before = files(tmp_path / "run")
    answer = idl("train", "trainer.resume=run", "trainer.max_epochs=2")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "run is complete and its checkpoints are gone" in answer.err
    assert files(tmp_path / "run") == before


def test_metrics_of_an_attempt_without_a_checkpoint_are_kept(
    idl: Idl, once: Idl, tiny: list[str], tmp_path: Path
) -> None:
    once("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    run = tmp_path / "run"
    for path in (*(run / "checkpoints").iterdir(), run / "summary.json"):  # as after kill -9
        path.unlink()
    metrics = (run / "metrics.jsonl").read_bytes()
    answer = idl("train", "trainer.resume=run")
    assert answer.code == 0, answer.err
    assert "the metrics so far are kept in metrics.1.jsonl" in answer.err
    assert (run / "metrics.1.jsonl").read_bytes() == metrics


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trainer.max_epochs=2", "trainer.max_epochs=2: that is 18 steps"),
        ("trainer.max_steps=5", "trainer.max_steps=5: that is 5 steps"),
    ],
)
def test_a_run_cannot_be_made_shorter(
    idl: Idl, once: Idl, tiny: list[str], tmp_path: Path, typed: str, said: str
) -> None:
    once("train", *tiny, "hydra.run.dir=run")
    before = files(tmp_path / "run")
    answer = idl("train", "trainer.resume=run", typed)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert f"{said}, and the run has made 27 (3 epochs)" in answer.err
    assert files(tmp_path / "run") == before


def test_a_damaged_line_of_metrics_costs_that_line_alone(
    idl: Idl, once: Idl, tiny: list[str], tmp_path: Path
) -> None:
    once("train", *tiny, "hydra.run.dir=run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    damaged = [b"\xff\xfe\x00 damaged\n", b"[" * 100_000 + b"\n", b'{"step": "3", "split": 1}\n']
    metrics.write_bytes(b"".join([lines[0], *damaged, *lines[2:]]))
    answer = idl("train", "trainer.resume=run", "trainer.max_epochs=4")
    assert answer.code == 0, answer.err
    assert answer.summary["status"] == "completed"
    kept = metrics.read_bytes().splitlines(keepends=True)
    assert kept[: len(lines) - 2] == [lines[0], *lines[2:-1]]  # the last is of the test split


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), KeyboardInterrupt()])
def test_an_attempt_that_adds_nothing_takes_nothing(
    idl: Idl,
    once: Idl,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    once("train", *tiny, "hydra.run.dir=run")
    before = files(tmp_path / "run")

    def evaluate(*arguments: Any, **rest: Any) -> None:
        raise error

    monkeypatch.setattr("idl_cli.jobs.training.fit_and_test.evaluate", evaluate)
    with pytest.raises(ZeroDivisionError) if isinstance(error, Exception) else nullcontext():
        assert idl("train", "trainer.resume=run").code == 130
    assert files(tmp_path / "run") == before


def test_a_longer_schedule_is_said_with_both_learning_rates(
    idl: Idl, once: Idl, tiny: list[str]
) -> None:
    cosine = [*tiny, "scheduler=cosine", "optimizer.lr=0.001"]
    once("train", *cosine, "hydra.run.dir=run")
    answer = idl("train", "trainer.resume=run", "trainer.max_epochs=6")
    last = 0.001 * (1 + math.cos(math.pi * 26 / 27)) / 2
    following = 0.001 * (1 + math.cos(math.pi * 27 / 54)) / 2
    (line,) = (line for line in answer.err.splitlines() if "scheduler=cosine" in line)
    assert "over 54 steps now, not 27" in line
    assert f"from {last:.2g} to {following:.2g}" in line
    metrics = (answer.run / "metrics.jsonl").read_text().splitlines()
    rates = {row["step"]: row["lr"] for row in map(json.loads, metrics) if row["split"] == "train"}
    assert rates[27] == pytest.approx(last)
    assert rates[28] == pytest.approx(following)


def test_a_constant_rate_goes_on_without_a_word(idl: Idl, once: Idl, tiny: list[str]) -> None:
    once("train", *tiny, "hydra.run.dir=run")
    assert "scheduler" not in idl("train", "trainer.resume=run", "trainer.max_epochs=4").err


def test_a_run_is_good_from_any_folder(
    idl: Idl, tiny: list[str], arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.npz").write_bytes(arrays.read_bytes())
    words = [word for word in tiny if not word.startswith("data.path")]
    run = idl("train", *words, "data.path=mine.npz", "hydra.run.dir=run").run.absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = idl("train", f"trainer.resume={run}", "trainer.max_epochs=4")
    assert answer.code == 0, answer.err
    moved = (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    words = [f"trainer.resume={run}", "data.path=../moved.npz", "trainer.max_epochs=5"]
    answer = idl("train", *words)
    assert answer.code == 0, answer.err
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert Path(config["data"]["path"]).resolve() == moved


@pytest.mark.parametrize("name", ["a=1,b=2", "my runs/x"])
def test_the_command_that_goes_on_is_as_one_types_it(
    idl: Idl, tiny: list[str], stop_at: StopAt, name: str
) -> None:
    stop_at(3)
    stopped = idl("train", *tiny, hydra_word("hydra.run.dir", name))
    assert stopped.code == 143, stopped.err
    stop_at(0)
    (line,) = (line for line in stopped.err.splitlines() if "go on with: " in line)
    answer = idl(*shlex.split(line.partition("go on with: idl ")[2]))
    assert answer.code == 0, answer.err
    assert str(answer.run) == name


@pytest.mark.parametrize(
    "text",
    [
        "it's",
        'a"b',
        "a\\",
        'a\\"b',
        "null",
        "007",
        "~/r",
        "[a]",
        "a: b",
        "$x#y",
        "runs/2025-11-22_a",
    ],
)
def test_words_are_read_as_they_were_meant(text: str) -> None:
    (word,) = shlex.split(typed_word("key", text))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.value() == text
