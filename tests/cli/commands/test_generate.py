"""Language models from the command line: training, the saved tokenizer, `idl generate`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from idl_cli.commands.generate import GenerateConfig, decoded, generated
from idl_cli.record.saved_model import saved_model

from ..conftest import Answer, Idl

TEXT = "the quick brown fox jumps over the lazy dög.\n" * 40
TINY = [
    "data=text",
    "data.path=text.txt",
    "data.block_size=8",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "trainer.max_steps=20",
    "trainer.eval_every=10",
]


@pytest.fixture
def trained(once: Idl, tmp_path: Path) -> Answer:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    answer = once("train", "model=attention", *TINY, "hydra.run.dir=trained")
    assert answer.code == 0, answer.err
    return answer


def test_a_language_model_is_trained_and_evaluated(idl: Idl, trained: Answer) -> None:
    for split in ("train", "val", "test"):
        figures = trained.summary[split]
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        assert figures["bits_per_char"] == pytest.approx(figures["loss"] / math.log(2))
    saved = json.loads((trained.run / "tokenizer.json").read_text("utf-8"))
    assert saved == {"kind": "characters", "characters": "".join(sorted(set(TEXT)))}
    answer = idl("eval", "run=trained")
    assert answer.summary["test"] == pytest.approx(trained.summary["test"], rel=1e-5)


def test_the_explicit_baseline_and_the_solve_to_tolerance(idl: Idl, trained: Answer) -> None:
    assert idl("train", "model=gpt", *TINY).code == 0
    more = ["model.fixed_point_iter=null", "model.attention_version=lipschitz"]
    assert idl("train", "model=attention", *TINY, *more, "trainer.max_steps=4").code == 0


def test_another_text_is_read_with_the_characters_of_the_run(
    idl: Idl, trained: Answer, tmp_path: Path
) -> None:
    # As many characters as before, but others: numbered anew they would fit, and mean nonsense.
    for name, text in (("upper", TEXT.upper()), ("turned", TEXT[::-1])):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    answer = idl("eval", "run=trained", "data.path=upper.txt")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "the character 'T'" in answer.err
    answer = idl("eval", "run=trained", "data.path=turned.txt")
    assert answer.code == 0, answer.err
    assert answer.summary["test"]["loss"] != trained.summary["test"]["loss"]


def test_the_text_of_the_training_is_evaluated_once(idl: Idl, trained: Answer) -> None:
    characters = sorted(set(TEXT))
    tokens = torch.tensor([characters.index(character) for character in TEXT])
    count = len(TEXT) - round(0.1 * len(TEXT))  # without the test part, and then the val part
    count -= round(0.1 * count)
    windows = (count - 1) // 8
    with torch.no_grad():
        scores = saved_model(Path("trained"))(tokens[: windows * 8].reshape(windows, 8))
    loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), tokens[1 : windows * 8 + 1])
    answer = idl("eval", "run=trained", "split=train")
    assert answer.summary["train"]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_resuming_on_a_text_of_other_characters_is_refused(
    idl: Idl, trained: Answer, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(TEXT.upper(), encoding="utf-8")
    before = (trained.run / "tokenizer.json").read_bytes()
    more = [f"data.path={tmp_path}/text.txt", "trainer.max_steps=30"]  # not the copy's own
    answer = idl("train", "trainer.resume=trained", *more)
    assert answer.code == 2, answer.err
    assert "belongs to another model" in answer.err
    assert (trained.run / "tokenizer.json").read_bytes() == before


def test_a_run_that_was_killed_before_its_tokenizer_was_written(idl: Idl, trained: Answer) -> None:
    path = trained.run / "tokenizer.json"
    before = path.read_bytes()
    path.unlink()
    assert idl("train", "trainer.resume=trained", "trainer.max_steps=21").code == 0
    assert path.read_bytes() == before
    assert idl("generate", "run=trained", "prompt=fox ", "max_new_tokens=3").code == 0


def test_generation_past_the_context(idl: Idl, trained: Answer) -> None:
    typed = ["run=trained", "prompt=fox ", "max_new_tokens=50", "seed=1", "top_k=5"]
    answer = idl("generate", *typed)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("fox ")
    assert len(answer.out) == len("fox ") + 50 + 1
    assert set(answer.out) <= set(TEXT)
    assert idl("generate", *typed).out == answer.out
    assert idl("generate", *typed, "seed=2").out != answer.out
    assert idl("generate", "run=trained", "prompt=a=b", "max_new_tokens=3").code == 2


def test_the_best_token_is_the_models_own(idl: Idl, trained: Answer) -> None:
    answer = idl("generate", "run=trained", "prompt=the q", "max_new_tokens=1", "temperature=0")
    characters = sorted(set(TEXT))
    prompt = torch.tensor([[characters.index(c) for c in "the q"]])
    with torch.no_grad():
        best = int(saved_model(Path("trained"))(prompt)[0, -1].argmax())
    assert answer.out == f"the q{characters[best]}\n"


def test_it_is_told_as_it_comes(trained: Answer) -> None:
    stream = generated(GenerateConfig("trained", prompt="x", max_new_tokens=10**9))
    assert next(stream) == "x"
    assert all(next(stream) in TEXT for _ in range(4))


def test_byte_pairs(idl: Idl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken itself, with a table of the bytes and one pair: GPT-2's would be downloaded."""
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"th": 256}
    table = tiktoken.Encoding("gpt2", pat_str=r"\S+|\s", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: table)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    answer = idl("train", "model=gpt", *TINY, "data.tokenizer=gpt2", "trainer.max_steps=5",
                 "hydra.run.dir=bytes")  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads((answer.run / "tokenizer.json").read_text()) == {"kind": "gpt2"}
    per_token = len(TEXT) / len(table.encode(TEXT))
    figures = answer.summary["test"]
    bits = figures["loss"] / math.log(2) / per_token
    assert figures["bits_per_char"] == pytest.approx(bits)
    answer = idl("eval", "run=bytes")
    assert answer.summary["test"] == pytest.approx(figures, rel=1e-5)


def test_a_character_of_several_tokens_is_held_back() -> None:
    class Bytes:
        size = 256

        def decode(self, tokens: list[int]) -> str:
            return bytes(tokens).decode("utf-8", errors="replace")

    text = "aé€b"
    tokens = (torch.tensor([[byte]]) for byte in text.encode())
    assert list(decoded(tokens, Bytes())) == list(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "run=<...> is needed"),
        (["trained"], "as run=trained"),
        (["run=nowhere"], "there is no such folder"),
        (["run=trained", "prompt=fox?"], "prompt='fox?': the character '?' (U+003F, position 3)"),
        (["run=trained", "promt=fox"], "Did you mean 'prompt'?"),
        (["run=trained", "max_new_tokens=0"], "max_new_tokens=0: it must be at least 1"),
        (["run=trained", "temperature=-1"], "temperature=-1: it must be at least 0"),
        (["run=trained", "top_k=0"], "top_k=0"),
        (["run=trained", "top_k=many"], "top_k=many: it must be a whole number"),
        (["run=trained", "seed=x"], "seed=x"),
        (["run=trained", "checkpoint=first"], "choose from best, last"),
        (["run=trained", "device=cuda:99"], "device=cuda:99"),
        (["run=trained", "--stream"], "unknown option '--stream'"),
    ],
)
def test_wrong_input(idl: Idl, trained: Answer, typed: list[str], said: str) -> None:
    answer = idl("generate", *typed)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer.err
    assert said in answer.err


def test_a_run_that_is_no_language_model(idl: Idl, tiny: list[str]) -> None:
    assert idl("train", *tiny, "hydra.run.dir=other").code == 0
    answer = idl("generate", "run=other")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "was trained on data=arrays, which is no text" in answer.err


@pytest.mark.parametrize("how", ["absent", "no JSON", "foreign", "other size"])
def test_a_damaged_tokenizer(idl: Idl, trained: Answer, how: str) -> None:
    path = trained.run / "tokenizer.json"
    if how == "absent":
        path.unlink()
    else:
        other = {"no JSON": "{", "foreign": "[1]"}
        path.write_text(other.get(how, '{"kind": "characters", "characters": "\\nabc"}'))
    for command in ("generate", "eval"):
        answer = idl(command, "run=trained")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert "tokenizer.json" in answer.err or command == "eval"
