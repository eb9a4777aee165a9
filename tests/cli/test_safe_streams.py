"""stdout and stderr that cannot be written or encoded: every command ends as if they could."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idl_cli import safe_streams
from idl_cli.hydra_app.hydra_job import run_hydra_job
from idl_cli.jobs.training import worker
from idl_cli.main import COMMANDS, main
from idl_cli.safe_streams import lost_output, make_streams_safe


def closed_pipe(descriptor: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, descriptor)


def full_disk(descriptor: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


def closed(descriptor: int) -> None:
    os.close(descriptor)


def to_file(descriptor: int) -> None:
    os.dup2(os.open(f"told{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)


Way = Callable[[int], None]


class Started(multiprocessing.get_context("fork").Process):  # type: ignore[misc,name-defined]
    """Commands one after another, as in a process that was started with such an stdout and stderr.

    Their exit codes are in `codes`.
    """

    def __init__(self, commands: list[list[str]], ways: dict[int, Way], encoding: str) -> None:
        super().__init__()
        self.commands, self.ways, self.encoding = commands, ways, encoding

    def run(self) -> None:
        codes = os.open("codes", os.O_WRONLY | os.O_CREAT)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            to_file(descriptor)
            stream: Any = open(descriptor, "w", encoding=self.encoding, closefd=False)  # noqa: SIM115
            if way := self.ways.get(descriptor):
                way(descriptor)
            # As Python does at its start.
            setattr(sys, name, None if way is closed else stream)
        for words in self.commands:
            try:
                code = main(words)
            except BaseException as error:
                code = repr(error)  # type: ignore[assignment]
            os.write(codes, (json.dumps(code) + "\n").encode())
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def started(
    commands: list[list[str]], ways: dict[int, Way], encoding: str = "utf-8"
) -> list[object]:
    process = Started(commands, ways, encoding)
    process.start()
    process.join(timeout=400)
    return [json.loads(line) for line in Path("codes").read_text().splitlines()]


@pytest.fixture
def every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: list[str], arrays: Path
) -> list[list[str]]:
    """Each command once, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question. " * 60)
    gpt = ["model=gpt", "data=text", f"data.path={text}", "model.n_layer=1", "model.n_head=1",
           "model.n_embd=8", "data.block_size=8", "trainer.max_steps=2"]  # fmt: skip
    commands = [
        ["train", *tiny, "hydra.run.dir=a"],
        ["train", *gpt, "hydra.run.dir=text"],
        ["train", "-m", *tiny, "seed=1,2", "hydra.sweep.dir=sweep"],
        ["sim", "data=arrays", f"data.path={arrays}", "teacher.hidden_dims=[5]",
         "trainer.max_epochs=1", "hydra.run.dir=sim"],
        ["eval", "run=a", "hydra.run.dir=evaluated"],
        ["generate", "run=text", "prompt=to be", "max_new_tokens=4"],
        ["runs", "."],
        ["runs", ".", "--csv"],
        ["runs", ".", "--json"],
        ["compare", "a", "sweep/0"],
        ["plot", "run=a"],
        ["data", "list"],
        ["info"],
        ["--help"],
        ["train", "--help"],
    ]  # fmt: skip
    assert {words[0] for words in commands} == {*COMMANDS, "--help"}
    return commands


WAYS: dict[str, dict[int, Way]] = {
    "| head -1": {1: closed_pipe},
    "2>&1 | head -1": {1: closed_pipe, 2: closed_pipe},
    "> /dev/full 2>&1": {1: full_disk, 2: full_disk},
    ">&- 2>&-": {1: closed, 2: closed},
}


@pytest.mark.parametrize("how", WAYS)
def test_what_cannot_be_written_is_dropped(how: str, every_command: list[list[str]]) -> None:
    assert started(every_command, WAYS[how]) == [0] * len(every_command)
    for run in ("a", "text", "sweep/0", "sweep/1", "sim", "evaluated"):
        summary = json.loads(Path(run, "summary.json").read_text())
        assert (summary["status"], summary["error"]) == ("completed", None), run


def test_what_cannot_be_encoded_is_spelled_out(every_command: list[list[str]]) -> None:
    assert started(every_command, {}, "ascii") == [0] * len(every_command)
    shown = Path("told1").read_bytes().decode("ascii")
    assert "||A||inf" in shown
    assert "?" not in shown.partition("usage: ")[0].replace("[y/n]?", "")


def test_wrong_input_stays_2(every_command: list[list[str]]) -> None:
    commands = [["train", "model.hiden_dim=3"], ["eval", "run=nowhere"], ["nonsense"]]
    assert started(commands, {1: closed, 2: full_disk}) == [2, 2, 2]


def test_what_is_lost_to_a_full_disk_is_said_where_it_can_be() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from idl_cli.main import main; main(['--help'])"],
        stdout=open("/dev/full", "w"),  # noqa: SIM115
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert run.returncode == 0
    assert run.stderr.splitlines() == [
        "idl: output could not be written (No space left on device) and is lost"
    ]


def fill_disk_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """stdout and stderr on a full disk; put back at the end."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, open("/dev/full", "w", encoding="ascii"))  # noqa: SIM115


def test_processes_that_others_start_have_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk_of_streams(monkeypatch)
    # A launcher's, which is given a configuration; here one that nothing can be made of.
    assert run_hydra_job(None, lambda request: None) is None  # type: ignore[arg-type, return-value]
    assert lost_output() is None
    print("×", flush=True)
    assert lost_output() == "No space left on device"


def test_workers_have_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk_of_streams(monkeypatch)
    with pytest.raises(OSError, match="events"):  # nobody listens
        worker.main(str(tmp_path))
    print("×", flush=True)


def test_making_them_safe_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk_of_streams(monkeypatch)
    make_streams_safe()
    first = sys.stdout, sys.stderr
    make_streams_safe()
    assert (sys.stdout, sys.stderr) == first


def test_other_streams_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    make_streams_safe()
    assert sys.stdout is notebook


def test_bytes_of_a_path_that_are_no_characters_are_written_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fsdecode(b"caf\xe9 \xe2\x80\x96")
    file = tmp_path / "out"
    monkeypatch.setattr(sys, "stdout", file.open("w", encoding="utf-8"))
    safe_streams.make_streams_safe()
    print(path, flush=True)
    assert file.read_bytes() == b"caf\xe9 \xe2\x80\x96\n"
