"""Each model on each kind of data that it reads, settings as they are by default: it learns.

The data are small, and real or made like real ones: written digits; the same in large colour
pictures, whose 3,072 pixels go together as those of photographs do; a load by the hour with its day
and weekends; Python's help.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from pydoc_data import topics

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ..conftest import Answer, Idl

CLASSES = 10


def digits(path: Path, size: int, channels: int) -> None:
    """scikit-learn's digits, or these faintly before a coloured background of another light."""
    rng = np.random.default_rng(0)
    bunch = load_digits()
    m, scale = len(bunch.images), size // 8
    x = np.kron(bunch.images / 16, np.ones((1, scale, scale)))[:, None]
    if channels > 1:
        coarse = rng.normal(size=(m, channels, 4, 4))
        background = np.kron(coarse, np.ones((1, 1, size // 4, size // 4)))
        x = rng.uniform(0.3, 0.7, (m, 1, 1, 1)) + 0.15 * x + 0.15 * background
        x += rng.normal(0, 0.03, (m, channels, size, size))
    x = (255 * x.clip(0, 1)).astype(np.uint8)
    y = bunch.target.astype(np.int64)
    np.savez(path, x_train=x[:900], y_train=y[:900], x_test=x[1400:], y_test=y[1400:])


def hours(path: Path) -> None:
    """Thirty days of a load by the hour: day and night, weekends, weather, and noise."""
    rng = np.random.default_rng(0)
    hour = np.arange(24 * 30)
    weather = np.convolve(rng.normal(size=len(hour) + 47), np.ones(48) / 7, "valid")
    load = 500 + 80 * np.sin(hour * math.tau / 24) - 60 * (hour // 24 % 7 > 4) + 10 * weather
    load += rng.normal(0, 5, len(hour))
    start = np.datetime64("2024-01-01T00")
    rows = [f"{start + number},{value:.2f}" for number, value in zip(hour, load, strict=True)]
    path.write_text("\n".join(["time,load", *rows]))


def learnt(idl: Idl, *words: str) -> Answer:
    answer = idl("train", *words, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    lines = (answer.run / "metrics.jsonl").read_text().splitlines()
    val = [line["loss"] for line in map(json.loads, lines) if line["split"] == "val"]
    assert all(map(math.isfinite, val))
    assert val[-1] < 2 * min(val) + 0.1, "it diverges in the end"
    return answer


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [("implicit", "adam"), ("mlp", "adam"), ("cnn", "adam"), ("implicit", "sgd"), ("mlp", "adamw")],
)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3)])
def test_pictures(
    idl: Idl, tmp_path: Path, size: int, channels: int, model: str, optimizer: str
) -> None:
    digits(tmp_path / "d.npz", size, channels)
    answer = learnt(idl, f"model={model}", f"optimizer={optimizer}", "data=arrays",
                    "data.path=d.npz", "trainer.max_epochs=5")  # fmt: skip
    assert answer.summary["test"]["accuracy"] > (1.5 if model == "cnn" else 3) / CLASSES
    # The rates of narrow models, 5e-3 and 0.05, end beyond this on wide pictures.
    most = 1.0 if model == "cnn" else 0.75  # it has a thirtieth of the weights, and learns slowly
    assert answer.summary["test"]["loss"] < most * math.log(CLASSES)


@pytest.mark.parametrize("model", ["implicit", "mlp", "rnn", "gru", "lstm"])
@pytest.mark.parametrize("data", ["spiky", "timeseries"])
def test_series(idl: Idl, tmp_path: Path, model: str, data: str) -> None:
    hours(tmp_path / "load.csv")
    words = ("data.path=load.csv", "trainer.max_epochs=10")
    answer = learnt(idl, f"model={model}", f"data={data}",
                    *(words if data == "timeseries" else ("trainer.max_epochs=1",)))  # fmt: skip
    persistence = answer.summary["persistence"]["test"]["mse"]
    assert answer.summary["test"]["mse"] < persistence


@pytest.mark.parametrize("model", ["attention", "gpt"])
def test_texts(idl: Idl, tmp_path: Path, model: str) -> None:
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    (tmp_path / "help.txt").write_text(text[:20_000])
    answer = learnt(idl, f"model={model}", "data=text", "data.path=help.txt",
                    "trainer.max_steps=30", "trainer.eval_every=15")  # fmt: skip
    assert answer.summary["test"]["loss"] < 0.9 * math.log(len(set(text[:20_000])))


def test_the_rate_follows_the_width(idl: Idl, tmp_path: Path) -> None:
    digits(tmp_path / "d.npz", 32, 3)
    words = ["data=arrays", "data.path=d.npz", "trainer.max_steps=1", "trainer.max_epochs=null"]

    def config(answer: Answer) -> str:
        assert answer.code == 0, answer.err
        return (answer.run / "config.yaml").read_text()

    wide = idl("train", *words)
    assert (
        "optimizer.lr=0.00042: the usual 0.005 is too fast for weights of 3,072 inputs" in wide.err
    )
    assert "lr: 0.00042\n" in config(wide)
    resumed = idl("train", f"trainer.resume={wide.run}", "trainer.max_steps=2")
    assert "lr: 0.00042\n" in config(resumed)
    typed = idl("train", *words, "optimizer.lr=0.003")
    assert "optimizer.lr" not in typed.err
    assert "lr: 0.003\n" in config(typed)
    assert "lr: 0.005\n" in config(idl("train", "trainer.max_steps=1"))
