"""`idl train` and `idl eval` on series: figures in the file's units, beside persistence's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from idl_cli.display.figures import spy_plot
from idl_cli.record.saved_model import saved_blocks

from ..conftest import Answer, Idl

LOOK_BACK, HORIZON = 6, 2
ROWS = (120, 30, 50)


@pytest.fixture
def values(tmp_path: Path) -> np.ndarray:
    """A series, in units far from 0 and 1, and `series.csv` in the test's folder."""
    rng = np.random.default_rng(0)
    walk = 500 + 20 * np.sin(np.arange(220) / 7) + rng.normal(0, 2, 220)
    days = np.datetime64("2020-01-01") + np.arange(220)
    lines = [f"{days[number]},{number},{value!r}" for number, value in enumerate(walk.tolist())]
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
    assert table == {"train (running)", "val", "test", "test, persistence"}
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


def test_other_rows_are_scaled_as_those_of_the_training(
    idl: Idl, values: np.ndarray, tmp_path: Path
) -> None:
    trained = train(idl, "model=gru")
    train_rows = ROWS[0]
    # What the windows of the test split do not see does not matter to their figures.
    other = np.concatenate([3 * values[:train_rows] - 900, values[train_rows:]])
    (tmp_path / "other.csv").write_text("\n".join(["heat", *(repr(v) for v in other.tolist())]))
    answer = idl("eval", "run=trained", "data.path=other.csv")
    assert answer.code == 0, answer.err
    assert answer.summary["test"] == trained.summary["test"]
    assert answer.summary["persistence"]["test"] == trained.summary["persistence"]["test"]


def test_a_series_far_from_zero_is_learnt_as_one_that_is_near(
    idl: Idl, values: np.ndarray, tmp_path: Path
) -> None:
    near = train(idl, "model=gru")
    lines = [repr(1e8 + value) for value in values.tolist()]
    (tmp_path / "far.csv").write_text("\n".join(["heat", *lines]))
    far = idl("train", *words("data.path=far.csv", "model=gru", "hydra.run.dir=far"))
    assert far.code == 0, far.err
    expected = persistence_truth(1e8 + values, ROWS[0] + ROWS[1], sum(ROWS))
    for name in ("mse", "mae", "r2"):
        assert far.summary["persistence"]["test"][name] == pytest.approx(expected[name], rel=1e-4)
        assert far.summary["test"][name] == pytest.approx(near.summary["test"][name], rel=1e-3)


def test_the_spy_plot_of_an_rnn(idl: Idl, values: np.ndarray) -> None:
    train(idl, "model=rnn")
    assert "matrices.png" in idl("plot", "run=trained").out
    saved = saved_blocks(Path("trained"))
    assert saved is not None
    figure = spy_plot(saved.blocks, saved.inputs, saved.outputs)
    # Its C and D make the next hidden state, not the prediction.
    assert figure.axes[2].get_ylabel() == "hidden state $h$"
    assert figure.axes[3].get_xlabel() == "input $u$ and $h$ before"


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
    lines[41] = f"2020-02-10,40,{cell}"
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


def test_differences_of_arrays_begin_as_persistence(
    idl: Idl, values: np.ndarray, tmp_path: Path
) -> None:
    x = np.stack([values[start : start + 10] for start in range(200)])[:, :, None]
    y = values[10:210, None] + 0.0
    np.savez(tmp_path / "a.npz", x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    typed = ["data=arrays", "data.path=a.npz", "model=gru", "model.differences=true",
             "optimizer.lr=1e-30", "trainer.max_epochs=1"]  # fmt: skip
    answer = idl("train", *typed, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    truth = metrics.mean_squared_error(y[150:], x[150:, -1])
    assert answer.summary["test"]["mse"] == pytest.approx(truth, rel=1e-4)
    assert idl("eval", "run=run").summary["test"] == close(answer.summary["test"])
    np.savez(tmp_path / "a.npz", x_train=x[:150], y_train=np.arange(150) % 2, x_test=x[150:],
             y_test=np.arange(50) % 2)  # fmt: skip
    answer = idl("train", *typed)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "model.differences=true predicts the next value, but data=arrays has" in answer.err


def test_targets_of_arrays_may_have_any_units(idl: Idl, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    y = 200_000 + 50_000 * (x @ rng.normal(size=(5, 1)))
    found = []
    for name, values in (("own", y), ("unit", (y - 200_000) / 50_000)):
        np.savez(tmp_path / f"{name}.npz", x_train=x[:150], y_train=values[:150],
                 x_test=x[150:], y_test=values[150:])  # fmt: skip
        answer = idl("train", "data=arrays", f"data.path={name}.npz", "model=mlp",
                     "trainer.max_epochs=10")  # fmt: skip
        assert answer.code == 0, answer.err
        found.append(answer.summary["test"])
    own, unit = found
    assert own["r2"] > 0.9
    assert own["r2"] == pytest.approx(unit["r2"], abs=1e-4)
    assert own["mae"] == pytest.approx(50_000 * unit["mae"], rel=1e-3)
