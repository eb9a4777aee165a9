"""`idl train` and `idl eval` on series: figures in the file's units, beside persistence's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from .conftest import Answer, Idl

LOOK_BACK, HORIZON = 6, 2
ROWS = (120, 30, 50)


@pytest.fixture
def values(tmp_path: Path) -> np.ndarray:
    """A series, in units far from 0 and 1, and `series.csv` in the test's folder."""
    rng = np.random.default_rng(0)
    walk = 500 + 20 * np.sin(np.arange(220) / 7) + rng.normal(0, 2, 220)
    lines = [f"2020-01-01,{number},{value!r}" for number, value in enumerate(walk.tolist())]
    (tmp_path / "series.csv").write_text("\n".join(["date,number,heat", *lines]) + "\n")
    return walk


def words(*more: str) -> list[str]:
    return [
        "data=timeseries",
        "data.path=series.csv",
        "data.column=heat",
        f"data.look_back={LOOK_BACK}",
        f"data.horizon={HORIZON}",
        f"data.rows=[{','.join(map(str, ROWS))}]",
        "trainer.max_epochs=2",
        "trainer.batch_size=32",
        *more,
    ]


def train(idl: Idl, *more: str) -> Answer:
    answer = idl("train", *words("hydra.run.dir=trained", *more))
    assert answer.code == 0, answer.err
    return answer


def persistence_truth(values: np.ndarray, first: int, last: int) -> dict[str, float]:
    """scikit-learn's figures of persistence for all windows whose targets lie in [first, last)."""
    starts = range(max(first, LOOK_BACK), last - HORIZON + 1)
    y = np.array([values[start : start + HORIZON] for start in starts])
    forecast = np.array([[values[start - 1]] * HORIZON for start in starts])
    return {
        "mse": metrics.mean_squared_error(y, forecast),
        "mae": metrics.mean_absolute_error(y, forecast),
        "mape": metrics.mean_absolute_percentage_error(y, forecast),
        "r2": metrics.r2_score(y, forecast),
    }


def close(expected: dict[str, float]) -> object:
    return pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("model", ["rnn", "gru", "lstm", "implicit", "mlp"])
def test_persistence_is_always_there(idl: Idl, values: np.ndarray, model: str) -> None:
    answer = train(idl, f"model={model}")
    ends = np.cumsum(ROWS)
    for split, first, last in zip(("train", "val", "test"), (0, *ends), ends, strict=False):
        found = dict(answer.summary["persistence"][split])
        found.pop("loss")
        assert found == close(persistence_truth(values, first, last))
        assert answer.summary[split].keys() == {"loss", "mse", "mae", "mape", "r2"}
    table = {line.rsplit(maxsplit=5)[0].strip() for line in answer.out.splitlines()[1:5]}
    assert table == {"train", "val", "test", "test, persistence"}
    assert (answer.run / "figures" / "forecast.png").read_bytes()[:4] == b"\x89PNG"


def test_an_untrained_model_of_differences_is_persistence(idl: Idl, values: np.ndarray) -> None:
    for model in ("rnn", "gru", "lstm"):
        answer = idl("train", *words(f"model={model}", "model.differences=true", "data.horizon=1",
                                     "optimizer.lr=1e-30", f"hydra.run.dir={model}"))  # fmt: skip
        assert answer.code == 0, answer.err
        for split in ("val", "test"):
            assert answer.summary[split] == close(answer.summary["persistence"][split])


def test_units_are_those_of_the_file(idl: Idl, values: np.ndarray) -> None:
    answer = train(idl, "model=gru")
    deviation = values[: ROWS[0]].std()
    for split in ("train", "val", "test"):
        figures = answer.summary[split]
        assert figures["mse"] == pytest.approx(figures["loss"] * deviation**2, rel=1e-6)
    rows = [json.loads(line) for line in (answer.run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["mae"] == pytest.approx(answer.summary["test"]["mae"])


def test_evaluation_finds_the_figures_again(idl: Idl, values: np.ndarray) -> None:
    trained = train(idl, "model=rnn")
    answer = idl("eval", "run=trained")
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == close(trained.summary["test"])
    assert answer.summary["persistence"]["test"] == trained.summary["persistence"]["test"]
    assert "persistence" in answer.out
    assert (answer.run / "figures" / "forecast.png").exists()
    assert idl("eval", "run=trained", "data.look_back=7").code == 2
    wrong = idl("eval", "run=trained", "data.block_size=7")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "unknown key 'data.block_size'" in wrong.err


def test_the_spy_plot_of_an_rnn(idl: Idl, values: np.ndarray) -> None:
    train(idl, "model=rnn")
    assert "matrices.png" in idl("plot", "run=trained").out


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "column 'heat', row 41 (line 42): the value is missing"),
        ("NaN", "column 'heat', row 41 (line 42): the value is missing"),
        ("warm", "column 'heat', row 41 (line 42): 'warm' is not a number"),
        ("inf", "column 'heat', row 41 (line 42): 'inf' is not a finite number"),
    ],
)
def test_a_cell_that_is_no_number(
    idl: Idl, values: np.ndarray, tmp_path: Path, cell: str, said: str
) -> None:
    path = tmp_path / "series.csv"
    lines = path.read_text().splitlines()
    lines[41] = f"2020-01-01,40,{cell}"
    path.write_text("\n".join(lines))
    answer = idl("train", *words("model=rnn"))
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert said in answer.err


def test_a_column_that_is_not_there(idl: Idl, values: np.ndarray) -> None:
    answer = idl("train", *words("model=rnn", "data.column=heath"))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "series.csv has no column 'heath'. Did you mean 'heat'?" in answer.err


def test_too_short_and_too_few_rows(idl: Idl, values: np.ndarray) -> None:
    answer = idl("train", *words("model=rnn", "data.look_back=300"))
    assert answer.code == 2
    assert "has 220 rows, too few for look_back=300" in answer.err
    answer = idl("train", *words("model=rnn", "data.rows=[200,20,20]"))
    assert answer.code == 2
    assert "has 220 rows, fewer than rows=[200, 20, 20]" in answer.err


def test_arrays_can_hold_sequences(idl: Idl, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(count, 5, 3)).astype("f4") for name, count in
         (("train", 40), ("test", 20))}  # fmt: skip
    y = {name: value.sum(1)[:, :2] for name, value in x.items()}
    np.savez(tmp_path / "a.npz", x_train=x["train"], y_train=y["train"], x_test=x["test"],
             y_test=y["test"])  # fmt: skip
    typed = ["data=arrays", "data.path=a.npz", "trainer.max_epochs=1"]
    assert idl("train", "model=rnn", *typed).code == 0
    answer = idl("train", "model=rnn", "model.differences=true", *typed)
    assert answer.code == 2
    assert "input_dim=3 must be 1 or output_dim=2" in answer.err
    np.savez(tmp_path / "b.npz", x_train=x["train"][:, 0], y_train=y["train"],
             x_test=x["test"][:, 0], y_test=y["test"])  # fmt: skip
    answer = idl("train", "model=gru", "data=arrays", "data.path=b.npz")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "it must be (time, features)" in answer.err
