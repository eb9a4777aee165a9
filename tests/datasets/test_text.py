"""Texts: tokens, windows, and what is said about files that will not do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idl_datasets import (
    CharacterTokenizer,
    DatasetError,
    TextDataset,
    TextSplit,
    embedded_like,
    load,
    tokenizer_from_state,
)

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("IDL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
TEXT = "the quick brown fox jumps over the lazy dög.\n" * 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_windows_are_those_of_the_text(file: Path) -> None:
    data = load("text", path=file, val_fraction=0.2, block_size=8)
    assert isinstance(data, TextDataset)
    assert data.tokenizer is not None
    assert (data.task, data.input_shape, data.output_dim) == ("language", (8,), len(set(TEXT)))
    count = len(TEXT)
    test = count - round(0.1 * count)
    val = test - round(0.2 * test)
    for split, first, end, step in (
        (data.train, 0, val, 1),
        (data.val, val, test, 8),
        (data.test, test, count, 8),
    ):
        assert split is not None
        inputs, targets = split.batch(torch.arange(len(split)))
        assert inputs.dtype == targets.dtype == torch.int64
        for row, start in enumerate(range(first, end - 8, step)):
            assert data.tokenizer.decode(inputs[row].tolist()) == TEXT[start : start + 8]
            assert data.tokenizer.decode(targets[row].tolist()) == TEXT[start + 1 : start + 9]
        assert row + 1 == len(split)


def test_windows_that_follow_one_another(file: Path) -> None:
    data = load("text", path=file, val_fraction=0, block_size=8)
    assert isinstance(data, TextDataset)
    test = len(TEXT) - round(0.1 * len(TEXT))
    for split, first, end in ((data.train, 0, test), (data.test, test, len(TEXT))):
        assert isinstance(split, TextSplit)
        apart = split.apart()
        inputs, targets = apart.batch(torch.arange(len(apart)))
        told = data.tokenizer.decode(inputs.flatten().tolist())
        assert TEXT[first:end].startswith(told)
        assert end - 8 <= first + len(told) < end
        assert data.tokenizer.decode(targets.flatten().tolist()) == TEXT[first + 1 :][: len(told)]


def test_windows_share_the_memory_of_the_text(file: Path) -> None:
    data = load("text", path=file, block_size=8)
    moved = data.train.to("meta")
    assert moved.x.shape == data.train.x.shape
    assert moved.x.untyped_storage().nbytes() < len(TEXT)
    assert data.train.to("cpu").x.data_ptr() == data.train.x.data_ptr()
    assert data.train.x.untyped_storage().nbytes() == len(TEXT)


def test_tokens_there_and_back(fails: Callable[..., Any]) -> None:
    tokenizer = CharacterTokenizer.of(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    again = tokenizer_from_state(tokenizer.state())
    assert again.encode("dög") == tokenizer.encode("dög")
    with fails("'Ω' (U+03A9, position 2)", "not in the vocabulary"):
        tokenizer.encode("foΩ")
    with fails("damaged"):
        tokenizer_from_state({"kind": "characters"})


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_text("a" * 50)
    (folder / "b" / "c.txt").write_text("b" * 500)
    (folder / ".hidden").write_bytes(b"\xff")
    data = load("text", path=folder, block_size=4)
    inputs, _ = data.train.batch(torch.tensor([0, 100]))
    assert data.tokenizer.decode(inputs.flatten().tolist()) == "aaaabbbb"


def test_pydoc_is_there_offline() -> None:
    data = load("pydoc")
    assert len(data.train) > 200_000
    text = data.tokenizer.decode(data.train.batch(torch.tensor([0]))[0][0].tolist())
    assert text.isascii()


def test_refusals(file: Path, tmp_path: Path, fails: Callable[..., Any]) -> None:
    with fails("val has", "too few for block_size=500"):
        load("text", path=file, block_size=500)
    with fails("data.tokenizer=words", "characters or gpt2"):
        load("text", path=file, tokenizer="words")
    with fails("cannot be read"):
        load("text", path=tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with fails("not UTF-8", "byte 3 is 0xe9"):
        load("text", path=tmp_path / "latin.txt")
    (tmp_path / "none").mkdir()
    with fails("has no files"):
        load("text", path=tmp_path / "none")
    with fails("is not Tiny Shakespeare", "SHA-256"):
        load("shakespeare", path=file)
    with fails("lacks tinyshakespeare.txt", "downloading is off"):
        load("shakespeare", root=tmp_path / "root", download=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_the_same_however_stored(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    data = load("text", path=path, val_fraction=0, block_size=8)
    inputs, _ = data.train.batch(torch.tensor([0, 40]))
    assert data.tokenizer.decode(inputs.flatten().tolist()) == TEXT[:8] + TEXT[40:48]
    assert data.output_dim == len(set(TEXT))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("caf\xe9".encode("latin-1"), ["byte 3 is 0xe9, on line 1", "save it as UTF-8"]),
        (b"one\ntwo\n\xff", ["byte 8 is 0xff, on line 3"]),
        ("abc".encode("utf-16-le"), ["byte 1 is 0x00", "UTF-16 without its mark"]),
        (b"\xff\xfea\0b", ["not UTF-16 text"]),
        (b"PK\x03\x04\xff", ["a spreadsheet, document"]),
        (b"%PDF-1.7 \xe2", ["a PDF"]),
        (b"\x1f\x8b\x08\x00", ["compressed (gzip)"]),
    ],
)
def test_what_is_no_text(
    content: bytes, said: list[str], tmp_path: Path, fails: Callable[..., Any]
) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    with fails(tmp_path / "text.txt", *said):
        load("text", path=tmp_path / "text.txt")


def test_a_file_of_the_users_own_is_not_to_be_deleted(
    file: Path, tmp_path: Path, fails: Callable[..., Any]
) -> None:
    with pytest.raises(DatasetError) as caught:
        load("shakespeare", path=file)
    assert f"read it as data=text data.path={file}." in str(caught.value)
    assert "delete" not in str(caught.value)
    assert "get it again" not in str(caught.value)
    (tmp_path / "tinyshakespeare.txt").write_text("mine")
    with fails("move it away and get it again"):
        load("shakespeare", root=tmp_path)


def test_what_else_there_is_can_be_read_by_the_same_models(
    tmp_path: Path, fails: Callable[..., Any]
) -> None:
    with fails("or use data=pydoc, which needs no download"):
        load("shakespeare", root=tmp_path, download=False)
    assert embedded_like("shakespeare") == ["pydoc"]
    assert embedded_like("cifar10") == ["digits"]
    assert embedded_like("timeseries") == ["spiky"]


def test_tiny_shakespeare() -> None:
    path = DATA / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip(f"{path} is absent: set IDL_TEST_DATA to a folder that has it")
    for settings in ({"path": path}, {"root": DATA}):
        data = load("shakespeare", val_fraction=0, **settings)
        assert data.output_dim == 65  # published
        assert len(data.train) == round(0.9 * 1_115_394) - 64
        first = data.tokenizer.decode(data.train.batch(torch.tensor([0]))[0][0].tolist())
        assert first.startswith("First Citizen:\nBefore we proceed")
