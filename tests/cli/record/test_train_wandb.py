"""`logger=wandb`: what was recorded offline is read back; and nothing of wandb's stops a run."""

from __future__ import annotations

import json
import shlex
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from idl_cli.record.loggers.wandb_logger import reachable

from ..conftest import Idl, Start

BLOCK = 32768  # of the LevelDB log format, in which wandb keeps its records
HEADER = 7


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, read without wandb's own code."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, whole = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        piece = data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        whole = piece if kind in (1, 2) else whole + piece
        if kind in (1, 4):  # whole, or its last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def history(path: Path) -> dict[int, dict[str, Any]]:
    """Every figure that was logged, by step."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row = {
                (item.key or ".".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            rows.setdefault(row["_step"], {}).update(row)
    return rows


def recorded(run: Path) -> Path:
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    return path


def test_in_a_sweep_every_job_is_its_own_run_in_one_group_with_all_its_figures(
    idl: Idl, tiny: list[str], tmp_path: Path
) -> None:
    answer = idl("train", "-m", *tiny, "seed=1,2", "logger=wandb", "logger.project=mine",
                 "logger.tags=[a,b]")  # fmt: skip
    assert answer.code == 0, answer.err
    ids = set()
    for job in ("0", "1"):
        run = answer.run / job
        (begun,) = [r.run for r in records(recorded(run)) if r.WhichOneof("record_type") == "run"]
        ids.add(begun.run_id)
        assert begun.run_group == answer.run.name
        assert begun.project == "mine"
        assert list(begun.tags) == ["a", "b"]
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        assert config["model"]["hidden_dim"] == 5
        rows = history(recorded(run))
        for line in (run / "metrics.jsonl").read_text().splitlines():
            figures = json.loads(line)
            step, split = figures.pop("step"), figures.pop("split")
            assert rows[step]["epoch"] == figures.pop("epoch")
            for name, value in figures.items():
                assert rows[step][f"{split}/{name}"] == value
    assert len(ids) == 2
    assert answer.err.count("wandb sync") == 2
    assert answer.err.count("wandb") < 10  # it does not chatter
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def of_the_day_before(run: Path) -> None:
    """Name what was recorded so far as if it were older: two within a second have one name."""
    for path in (run / "wandb").glob("offline-run-*"):
        path.rename(path.with_name(path.name.replace(path.name.split("-")[2], "20200101_000000")))


def test_a_resumed_run_keeps_its_id(
    idl: Idl, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where wandb's service begins, if it has not yet
    wandb.teardown()
    assert idl("train", *tiny, "trainer.max_epochs=1", "logger=wandb").code == 0
    monkeypatch.chdir(tmp_path)
    first = idl("train", *tiny, "logger=wandb", "hydra.run.dir=run")
    assert first.code == 0, first.err
    of_the_day_before(first.run)
    second = idl("train", "trainer.resume=run", "trainer.max_epochs=4")
    assert second.code == 0, second.err
    # Both are recorded where they say, not below the folder that the service began in.
    files = sorted(first.run.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({path.stem for path in files}) == 1
    assert max(history(files[1])) == second.summary["steps"]


def test_what_is_uploaded_last_holds_the_whole_curve(
    idl: Idl, start: Start, tiny: list[str], tmp_path: Path
) -> None:
    # In a process of its own, as it would be.
    assert start("train", *tiny, "logger=wandb", "hydra.run.dir=run", CI="true").ended().code == 0
    of_the_day_before(tmp_path / "run")
    answer = idl("train", "trainer.resume=run", "trainer.max_epochs=4")
    folder = Path(shlex.split(answer.err.partition("wandb sync ")[2])[0])
    assert "20200101" not in folder.name
    (path,) = folder.glob("*.wandb")
    rows = history(path)
    for line in (answer.run / "metrics.jsonl").read_text().splitlines():
        figures = json.loads(line)
        step, split = figures.pop("step"), figures.pop("split")
        assert rows[step]["epoch"] == figures.pop("epoch")
        for name, value in figures.items():
            assert rows[step][f"{split}/{name}"] == value


class Broken:
    """A wandb run that fails at whatever is asked of it."""

    dir = "/nowhere/files"

    def __getattr__(self, name: str) -> Any:
        raise ConnectionResetError("the service died\nand said so at length")


@pytest.mark.parametrize("when", ["init", "log"])
def test_wandb_failing_is_said_once_and_the_run_goes_on(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def init(**settings: Any) -> Broken:
        if when == "init":
            raise RuntimeError("no space\nfor it")
        return Broken()

    monkeypatch.setattr(wandb, "init", init)
    answer = idl("train", *tiny, "logger=wandb")
    assert answer.code == 0, answer.err
    assert answer.err.count("wandb") == 1
    assert "the local record goes on alone" in answer.err
    assert answer.summary["status"] == "completed"
    assert len((answer.run / "metrics.jsonl").read_text().splitlines()) == 13


def test_online_without_a_connection_is_recorded_offline(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def init(mode: str, **settings: Any) -> Broken:
        modes.append(mode)
        raise ConnectionError("unreachable")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("idl_cli.record.loggers.wandb_logger.reachable", lambda: True)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    answer = idl("train", *tiny, "logger=wandb")
    assert answer.code == 0, answer.err
    assert modes == ["online", "offline"]
    modes.clear()
    monkeypatch.delenv("WANDB_API_KEY")
    answer = idl("train", *tiny, "logger=wandb", "logger.mode=online")
    assert modes == ["offline"]  # without credentials wandb would wait for someone to type a key
    assert "not logged in" in answer.err


def test_a_server_that_takes_no_connections_is_not_waited_for(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert reachable()
    assert not reachable()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    answer = idl("train", *tiny, "logger=wandb")
    assert answer.code == 0, answer.err
    assert "is not reachable from here: recording offline" in answer.err
    assert "wandb recorded offline; to upload" in answer.err
    assert recorded(answer.run).exists()


def test_a_folder_of_wandb_that_cannot_be_made(idl: Idl, tiny: list[str]) -> None:
    first = idl("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    (first.run / "wandb").write_text("in its place")
    answer = idl("train", "trainer.resume=run", "trainer.max_epochs=3", "logger=wandb")
    assert answer.code == 0, answer.err
    lines = (answer.run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["split"] == "test"
    assert (answer.run / "wandb").read_text() == "in its place"


def test_disabled_by_the_environment(
    idl: Idl, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(wandb, "init", lambda **settings: pytest.fail("it was started"))
    answer = idl("train", *tiny, "trainer.max_epochs=1", "logger=wandb")
    assert answer.code == 0, answer.err
    assert "wandb: disabled by WANDB_MODE" in answer.err
    assert not (answer.run / "wandb").exists()
