"""`idl runs`: what it finds, in which order, under which conditions, and in which format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from idl_cli.display import tables
from idl_cli.errors import InputError
from idl_cli.main import main
from idl_cli.record.finder import find_runs
from idl_cli.record.query import parse_conditions
from idl_cli.record.reader import MISSING, RunRecord

NAMES = ("2025-11-20_10-00-00_a", "2025-11-21_09-00-00_b", "2025-11-21_10-00-00_c")


@pytest.fixture
def three(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three runs, oldest first, with accuracies 0.9, 0.97, 0.8; named as `idl runs` does."""
    monkeypatch.chdir(tmp_path)
    sizes = zip(NAMES, (50, 100, 150), (0.9, 0.97, 0.8), strict=True)
    for name, hidden, accuracy in sizes:
        make_run(
            f"train/{name}",
            config={"model": {"name": "implicit", "hidden_dim": hidden, "rank": None}},
            overrides=(f"model.hidden_dim={hidden}",),
            test={"accuracy": accuracy, "loss": 1 - accuracy},
            wall_s=hidden / 10,
        )
    return [f"runs/train/{name}" for name in NAMES]


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The runs that `idl runs --json` with these arguments names, in order."""
    assert main(["runs", "--json", *arguments]) == 0
    return [record["run"] for record in json.loads(capsys.readouterr().out)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that `idl runs` refuses these arguments with."""
    assert main(["runs", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_newest_first_unless_sorted(three: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = three
    assert listed(capsys) == [c, b, a]
    assert listed(capsys, "--sort", "test.accuracy") == [c, a, b]
    assert listed(capsys, "--sort", "-test.accuracy") == [b, a, c]
    assert listed(capsys, "--sort=-wall_s", "--limit", "2") == [c, b]
    assert listed(capsys, "--sort", "model.hidden_dim") == [a, b, c]
    assert listed(capsys, "runs/train", "--sort", "-test") == [b, a, c]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("model.hidden_dim>=100", "bc"),
        ("model.hidden_dim > 100", "c"),
        ("model.hidden_dim<100", "a"),
        ("model.hidden_dim<=1e2", "ab"),
        ("model.hidden_dim!=100", "ac"),
        ("model.hidden_dim=100.0", "b"),
        ("model.hidden_dim>=100,test.accuracy>0.9", "b"),
        ("status==completed", "abc"),
        ("status!=completed", ""),
        ("overrides=='model.hidden_dim=150'", "c"),
        ("model.rank==null", "abc"),
        ("model.rank>0", ""),
        ("started>=2025-11-21", "bc"),
        ("run<runs/train/2025-11-21", "a"),
    ],
)
def test_where(
    three: list[str], capsys: pytest.CaptureFixture[str], conditions: str, expected: str
) -> None:
    by_letter = dict(zip("abc", three, strict=True))
    found = listed(capsys, "--where", conditions, "--sort", "run")
    assert found == [by_letter[letter] for letter in expected]


def test_where_given_twice_must_both_hold(
    three: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--where", "model.hidden_dim>50", "--where", "test.accuracy<0.9")
    assert listed(capsys, *arguments) == three[2:]


def test_commas_in_quotes_and_lists_are_the_value_s() -> None:
    conditions = parse_conditions(["a==[1, 2],b=='x,y',c<3"])
    assert [(each.key, each.wanted) for each in conditions] == [
        ("a", "[1,2]"),
        ("b", "x,y"),
        ("c", "3"),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sort", "test.acuracy"), "'test.acuracy'. Did you mean 'test.accuracy'"),
        (("--sort", "hidden_dim"), "'model.hidden_dim'"),
        (("--sort", "test.los"), "'test.loss'"),
        (("--where", "model.hiden_dim>=100"), "Did you mean 'model.hidden_dim'"),
        (("--where", "model.hidden_dim"), "no comparison in 'model.hidden_dim'"),
        (("--where", "__import__('os').system('true')"), "no comparison"),
        (("--where", "a>>3"), "'>>3'"),
        (("--sort",), "--sort needs a value"),
        (("--srot", "run"), "Did you mean '--sort'"),
        (("--limit", "0"), "--limit 0"),
        (("--limit", "-3"), "--limit -3"),
        (("--json=yes",), "--json takes no value"),
        (("--json", "--csv"), "two formats"),
        (("rnus",), "no folder 'rnus'. Did you mean 'runs'"),
        (("runs/train", "runs"), "one folder"),
        (("sort=run",), "--sort 'run'"),
    ],
)
def test_wrong_input_is_one_line_and_2(
    three: list[str], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert says in refused(capsys, *arguments)


def test_figures_are_json_and_csv(three: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json", "--where", "optimizer.lr!=0"]) == 2  # no run has that key
    capsys.readouterr()
    assert main(["runs", "--json", "--sort", "model.hidden_dim"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["test"] == {"accuracy": 0.9, "loss": pytest.approx(0.1)}
    assert first["overrides"] == ["model.hidden_dim=50"]
    assert (first["model"], first["data"], first["model.hidden_dim"]) == ("implicit", "digits", 50)

    assert main(["runs", "--csv", "--sort", "model.hidden_dim"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["test.accuracy"] for row in rows] == ["0.9", "0.97", "0.8"]
    assert [row["model.hidden_dim"] for row in rows] == ["50", "100", "150"]


def test_runs_that_ended_badly_are_shown_as_they_are(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("a_good")
    make_run("b_failed", status="failed", test={}, val={"loss": float("nan")}, error="NaN")
    lines = ({"split": "train", "epoch": 3, "step": 60, "loss": 0.5},)
    make_run("c_killed", status=None, metrics=lines)
    for name, text in (("d_half", '{"status": "comp'), ("e_list", "[1]"), ("f_empty", "")):
        (make_run(name) / "summary.json").write_text(text)
    folder = str(tmp_path / "runs")
    assert main(["runs", folder, "--json", "--sort", "run"]) == 0
    records = json.loads(capsys.readouterr().out)
    states = ["completed", "failed", "unfinished", "damaged", "damaged", "damaged"]
    assert [record["status"] for record in records] == states
    assert records[1]["val"] == {"loss": None}  # JSON has no NaN
    assert (records[2]["epochs"], records[2]["train"]) == (3, {"loss": 0.5})
    # Whatever has no value comes last, whichever way the rest is sorted.
    for order in ("test.accuracy", "-test.accuracy"):
        assert listed(capsys, folder, "--sort", order)[0].endswith("a_good")


def test_a_damaged_configuration_is_no_crash(make_run: Any, tmp_path: Path) -> None:
    run = make_run("a")
    (run / "config.yaml").write_bytes(b"model: {name: [\n\xff")
    (run / "overrides.yaml").write_text("- a: [")
    record = RunRecord.read(run)
    assert (record.status, record.overrides, record.config) == ("completed", [], {})
    assert main(["runs", str(tmp_path)]) == 0


@pytest.mark.parametrize("flow", [False, True])
def test_a_group_is_read_alike_from_any_style_of_yaml(make_run: Any, flow: bool) -> None:
    run = make_run("a")
    styles = {
        True: "{model: {name: rnn, sizes: [1, 2]}, data: {name: mnist}}",
        False: "data:\n  name: mnist\n\nmodel:\n# a comment\n  name: rnn\n  sizes:\n  - 1\n  - 2\n",
    }
    (run / "config.yaml").write_text(styles[flow])
    record = RunRecord.read(run)
    assert record.value("model") == "rnn"
    assert record.value("model.sizes") == [1, 2]
    assert record.value("data.name") == "mnist"
    assert record.config["model"] == {"name": "rnn", "sizes": [1, 2]}


def test_an_evaluation_shows_the_model_and_data_it_is_of(make_run: Any, tmp_path: Path) -> None:
    trained = make_run("train/a", config={"model": {"name": "rnn"}})
    evaluated = {"run": str(trained), "data": "mnist"}
    run = make_run("eval/b", config={"model": None, "data": {"name": None}}, evaluated=evaluated)
    record = RunRecord.read(run)
    assert (record.value("model"), record.value("data")) == ("rnn", "mnist")
    trained.rename(tmp_path / "elsewhere")
    assert RunRecord.read(run).value("model") is MISSING


def test_settings_are_shown_as_set_and_figures_rounded(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"optimizer": {"lr": 0.00012345678}, "trainer": {"batch_size": 12000}}
    make_run("a", config=config, train={"loss": 0.123456})
    conditions = "optimizer.lr<1,train.loss<1,trainer.batch_size>1"
    assert main(["runs", str(tmp_path), "--where", conditions]) == 0
    assert capsys.readouterr().out.split()[-3:] == ["0.00012345678", "0.1235", "12000"]


def test_what_is_a_run(make_run: Any, tmp_path: Path) -> None:
    sweep = make_run("train/2025-11-21_09-00-00_sweep/0").parent
    make_run("train/2025-11-21_09-00-00_sweep/1")
    run = make_run("train/2025-11-21_10-00-00_one")
    (run / "checkpoints" / "summary.json").write_text("{}")  # below a run nothing is one
    (tmp_path / "runs" / "train" / "latest").symlink_to(run)
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    sources = tmp_path / "runs" / "conf"
    sources.mkdir()
    (sources / "config.yaml").write_text("defaults:\n- model: implicit\n")
    hidden = tmp_path / "runs" / ".hydra"
    hidden.mkdir()
    (hidden / "config.yaml").write_text("model: {}\n")

    found = find_runs(tmp_path / "runs")
    assert [record.path for record in found] == [sweep / "0", sweep / "1", run]
    assert [record.path for record in find_runs(run)] == [run]
    assert found[0].started == "2025-11-21 09:00:00"  # a job has its sweep's date


def test_no_runs_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "idl train" in capsys.readouterr().err
    assert listed(capsys) == []


def test_piped_table_is_plain_and_whole(
    three: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "--where", "model.hidden_dim>=100"]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    head, *rows = output.splitlines()
    assert " ".join(head.split()) == (
        "run status model data overrides epochs val accuracy test accuracy parameters wall "
        "started model.hidden_dim"
    )
    assert " ".join(rows[0].split()) == (
        f"{three[2]} completed implicit digits model.hidden_dim=150 2 0.9400 0.8000 9,034 15.0s "
        "2025-11-21 10:00:00 150"
    )


def test_columns_give_way_on_a_narrow_terminal() -> None:
    columns = [
        tables.Column("run", ["x" * 30]),
        tables.Column("typed", ["y" * 90], spare=1, wraps=True),
        tables.Column("test accuracy", ["0.9"], number=True),
        tables.Column("started", ["z" * 19], spare=2),
    ]
    assert tables.fitting(columns, 200) == (columns, [])
    shown, hidden = tables.fitting(columns, 80)
    assert [column.name for column in shown] == ["run", "typed", "test accuracy"]
    assert hidden == ["started"]
    assert tables.fitting(columns, 10)[1] == ["typed", "started"]


def test_a_narrow_terminal_shows_what_tells_a_sweep_s_rows_apart(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = "train/2025-11-21_09-56-12_implicit_digits"
    for job in range(12):
        words = ("trainer.max_epochs=3", "model.hidden_dim=20", f"seed={job}")
        make_run(f"{sweep}/{job}", overrides=words)
    monkeypatch.chdir(make_run("other").parents[1])
    monkeypatch.setattr(tables, "draws", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["runs", f"runs/{sweep}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.startswith("runs/")]
    # In the order of the jobs, not of their names' letters.
    assert [(row[0].rpartition("/")[2], row[1]) for row in rows] == [
        (str(job), f"seed={job}") for job in range(12)
    ]


def test_every_table_writes_a_metric_alike() -> None:
    assert [tables.metric_text(value) for value in (134200.4, 7785.3832, 0.25, 0.0, 2e-5)] == [
        "134200.4",
        "7785.4",
        "0.2500",
        "0.0000",
        "2.000e-05",
    ]
    assert tables.metric_text(float("inf")) == "inf"


def test_unreadable_words() -> None:
    with pytest.raises(InputError, match="no comparison"):
        parse_conditions([""])


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_of_any_width_shows_paths_and_figures_whole(
    three: list[str],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tables, "draws", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    for run, accuracy in zip(three, ("0.9000", "0.9700", "0.8000"), strict=True):
        row = next(line for line in lines if line.startswith(f"{run} "))
        assert accuracy in row.split()
    assert ("not shown for want of width" in " ".join(lines)) == (width < 200)
