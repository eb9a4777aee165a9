"""Checkpoints come back whole, or say that they are not; a crash at any moment loses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from idl_core.training import (
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "slice": torch.arange(20.0).reshape(4, 5).T[1:3],
}


def made_at(step: int, **more: object) -> Checkpoint:
    tensors = {"model.w": torch.full((3,), float(step))}
    return Checkpoint(tensors, {"progress": {"step": step}, **more})


def test_round_trip(tmp_path: Path) -> None:
    tied = {"x": TENSORS["a"], "y": TENSORS["a"]}
    state = {"progress": {"step": 3}, "best": float("inf"), "words": ["é", None, True]}
    write_checkpoint(tmp_path / "c", {**TENSORS, **tied}, state)
    found = read_checkpoint(tmp_path / "c")
    assert found.state == state
    assert found.tensors.keys() == {*TENSORS, *tied}
    for name, tensor in {**TENSORS, **tied}.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor), name
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "foreign"])
def test_what_is_no_whole_checkpoint_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, TENSORS, {})
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"w": torch.ones(2)}, path)
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[:-3], "empty": b"", "text": b"hello world"}[damage])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"w": torch.arange(4.0)}, {"progress": {"step": 1}})
    whole = path.read_bytes()
    before = read_checkpoint(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = read_checkpoint(path)
        except CheckpointError:
            continue
        # Only white space that pads the header may differ and go unnoticed.
        assert found.state == before.state
        assert torch.equal(found.tensors["w"], before.tensors["w"])


def test_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idl_core.training.checkpoint.FORMAT", 99)
    write_checkpoint(tmp_path / "c", {}, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="'99'"):
        read_checkpoint(tmp_path / "c")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": Bomb()}, tmp_path / "last.safetensors")
    with pytest.raises(CheckpointError):
        CheckpointFolder(tmp_path).load()
    assert not (tmp_path / "ran").exists()


def test_nothing_saved_is_not_an_error(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").load() == (None, None, [])


def test_of_another_model(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, "one").save(made_at(1), None)
    with pytest.raises(CheckpointError, match="another model"):
        CheckpointFolder(tmp_path, "other").load()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"model.weight": torch.zeros(2, 3)}, "it has no 'bias'"),
        ({"model.weight": torch.zeros(2, 4), "model.bias": torch.zeros(2)}, r"\(2, 4\) in it"),
        (
            {
                "model.weight": torch.zeros(2, 3),
                "model.bias": torch.zeros(2),
                "model.more": torch.zeros(1),
            },
            "'more' is not in this one",
        ),
    ],
)
def test_weights_that_do_not_fit(tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_weights(nn.Linear(3, 2), tensors)


def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(made_at(1), None)
    folder.save(made_at(2), None)
    folder.last.write_bytes(folder.last.read_bytes()[:-1])
    last, best, problems = folder.load()
    assert last is not None
    assert (last.step, best) == (1, None)
    assert len(problems) == 1
    assert "last.safetensors" in problems[0]
    folder.previous.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        folder.load()


def test_the_one_before_has_the_best_of_its_own_time(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(made_at(1, best_step=1), made_at(1))
    folder.save(made_at(2, best_step=2), made_at(2))
    folder.last.write_bytes(b"")
    last, best, problems = folder.load()
    assert last is not None
    assert best is not None
    assert (last.step, best.step, len(problems)) == (1, 1, 1)
    assert folder.load_best().step == 2  # the weights, all the same, are there to be evaluated
    folder.save(made_at(3, best_step=2), None)
    folder.best.write_bytes(b"")
    _, best, problems = folder.load()
    assert best is not None
    assert (best.step, len(problems)) == (1, 1)  # an earlier one is better than none


def test_a_best_that_was_rescued_alone_is_not_taken_for_that_of_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(made_at(1, best_step=1), made_at(1))
    folder.save_best(made_at(2))
    _, best, problems = folder.load()
    assert best is not None
    assert (best.step, problems) == (1, [])
    assert folder.load_best().step == 2


def test_constants_are_in_every_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, constants={"data.mean": torch.tensor([3.0])})
    folder.save(made_at(1, best_step=1), made_at(1))
    for path in (folder.last, folder.best):
        assert read_checkpoint(path).tensors["data.mean"].tolist() == [3.0]
        assert read_checkpoint(path).tensors["model.w"].tolist() == [1.0] * 3


def test_a_damaged_best_is_said_and_last_still_loads(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(made_at(2, best_step=2), made_at(2))
    folder.best.write_bytes(b"")
    last, best, problems = folder.load()
    assert last is not None
    assert best is None
    assert len(problems) == 2


class Crash(BaseException):
    """The process ends here."""


def crash_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end at the nth of its steps that touch the disk."""
    calls = 0
    for name in ("replace", "fsync"):
        real = getattr(os, name)

        def counted(*args: object, real: Callable[..., object] = real) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Crash
            return real(*args)

        monkeypatch.setattr(os, name, counted)


def test_a_crash_at_any_moment_leaves_one_whole_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = set()
    for call in range(1, 100):
        folder = CheckpointFolder(tmp_path / str(call))
        folder.save(made_at(1, best_step=1), made_at(1))
        folder.save(made_at(2, best_step=1), None)
        crash_at(call, monkeypatch)
        crashed = False
        try:
            folder.save(made_at(3, best_step=3), made_at(3))
        except Crash:
            crashed = True
        monkeypatch.undo()
        last, best, problems = CheckpointFolder(folder.folder).load()
        assert last is not None
        assert best is not None
        assert not problems
        outcomes.add((last.step, best.step))
        # And what was left behind does not harm the next save.
        folder.save(made_at(4, best_step=4), made_at(4))
        last, best, problems = folder.load()
        assert last is not None
        assert best is not None
        assert (last.step, best.step, problems) == (4, 4, [])
        assert folder.load_best().step == 4
        if not crashed:
            break
    assert outcomes == {(2, 1), (3, 3)}  # the pair before or the pair after, and no mixture


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(made_at(1, best_step=1), made_at(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.save(made_at(2, best_step=2), made_at(2))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
