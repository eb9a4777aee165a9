"""`idl plot`: which figures a run gets, that they show its numbers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from idl_cli.config.data_options import DataConfig
from idl_cli.config.model_options import ImplicitConfig, MLPConfig, ModelConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.config.training_options import AdamConfig, ConstantConfig, TrainerConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.display import figures
from idl_cli.display.curves import iterations, learning
from idl_cli.main import main
from idl_cli.record.metrics_reader import read_metrics
from idl_cli.record.saved_model import saved_blocks
from idl_core.functions import ImplicitFunctionInf, ImplicitFunctionTriu
from idl_core.models import MLP, ImplicitModel
from idl_core.training.checkpoint import Checkpoint, CheckpointFolder


def config_of(model: ModelConfig) -> dict[str, Any]:
    """A whole configuration of `idl train` with this model."""
    return as_plain(
        TrainConfig(
            name="test",
            model=model,
            data=DataConfig(),
            optimizer=AdamConfig(),
            scheduler=ConstantConfig(),
            trainer=TrainerConfig(),
        )
    )


def rows(passes: int, per_pass: int = 20, every: int = 10) -> tuple[dict[str, Any], ...]:
    """What a training records: train rows every few steps, one of val a pass."""
    lines: list[dict[str, Any]] = []
    for step in range(every, passes * per_pass + 1, every):
        place = {"step": step, "epoch": -(-step // per_pass)}
        figures = {"loss": 10.0 / step, "accuracy": 1 - 1 / step}
        solver = {"forward_iterations": float(step), "adjoint_iterations": step + 1.0}
        lines.append({**place, "split": "train", **figures, **solver})
        if step % per_pass == 0:
            lines.append({**place, "split": "val", "loss": 20.0 / step, "accuracy": 0.5})
    return tuple(lines)


def save_weights(run: Path, model: torch.nn.Module) -> None:
    """Write `model` as the run's best checkpoint, of 6 inputs and 3 outputs."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    sizes = {"input_shape": [2, 3], "output_dim": 3}
    fingerprint = json.dumps({"task": "classification", **sizes})
    CheckpointFolder(run / "checkpoints", fingerprint).save_best(Checkpoint(tensors, {"step": 1}))


def drawn(capsys: pytest.CaptureFixture[str], run: Path) -> list[str]:
    """The names of the figures that `idl plot` makes; all of them must be pictures."""
    assert main(["plot", f"run={run}"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    for path in paths:
        assert path.parent == run / "figures"
        picture = imread(path)
        assert min(picture.shape[:2]) > 400
        assert picture[..., :3].std() > 0.01  # not an empty sheet
    return [path.name for path in paths]


CURVES = ["learning_curves.png", "solver_iterations.png"]


def test_an_implicit_run_gets_all_figures(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("a", metrics=rows(3), config=config_of(ImplicitConfig(hidden_dim=8)))
    save_weights(run, ImplicitModel(6, 3, 8))
    assert drawn(capsys, run) == [*CURVES, "matrices.png"]
    before = {path: path.read_bytes() for path in (run / "figures").iterdir()}
    assert drawn(capsys, run) == [*CURVES, "matrices.png"]
    assert {path: path.read_bytes() for path in (run / "figures").iterdir()} == before


def test_another_run_gets_those_that_apply(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    without = tuple({k: v for k, v in row.items() if "iterations" not in k} for row in rows(3))
    run = make_run("a", metrics=without, config=config_of(MLPConfig(hidden_dims=(4,))))
    save_weights(run, MLP(6, 3, (4,), "relu"))
    assert drawn(capsys, run) == ["learning_curves.png"]


def test_a_run_that_was_killed_gets_what_there_is(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("a", metrics=rows(1), status=None)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "spl')
    assert drawn(capsys, run) == CURVES


@pytest.mark.parametrize(
    "settings",
    [{}, {"bias": True}, {"no_D": True}, {"is_low_rank": True, "rank": 2}, {"wellposed": "triu"}],
)
def test_blocks_are_those_of_the_equilibrium(make_run: Any, settings: dict[str, Any]) -> None:
    """Iterating X = relu(AX + BU) with them in NumPy gives the model's own prediction."""
    torch.manual_seed(0)
    f = ImplicitFunctionTriu if "wellposed" in settings else ImplicitFunctionInf
    arguments = {key: value for key, value in settings.items() if key != "wellposed"}
    model = ImplicitModel(6, 3, 8, f=f, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():  # large enough for the projection to matter
            parameter.mul_(6)
    run = make_run("a", config=config_of(ImplicitConfig(hidden_dim=8, **settings)))
    save_weights(run, model)
    saved = saved_blocks(run)
    assert saved is not None
    blocks = saved.blocks

    U = torch.randn(5, 6, dtype=torch.float64)
    inputs = np.c_[U.numpy(), np.ones(5)].T if settings.get("bias") else U.numpy().T
    X = np.zeros((8, 5))
    for _ in range(3000):
        X = np.maximum(blocks["A"] @ X + blocks["B"] @ inputs, 0)
    predicted = blocks["C"] @ X + blocks["D"] @ inputs
    np.testing.assert_allclose(model(U).detach().numpy().T, predicted, rtol=2e-4, atol=2e-4)


def test_curves_are_drawn_against_the_epoch() -> None:
    train = [row for row in rows(3) if row["split"] == "train"]
    val = [row for row in rows(3) if row["split"] == "val"]
    curves, against = learning({"train": train, "val": val})
    assert against == "epoch"
    assert list(curves) == ["loss", "accuracy"]
    assert curves["loss"]["val"] == ([1.0, 2.0, 3.0], [1.0, 0.5, 20 / 60])
    assert curves["loss"]["train"][0] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]

    figure = figures.learning_curves(curves, against)
    loss, accuracy = figure.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert accuracy.get_ylabel() == "accuracy (%)"
    assert list(loss.lines[1].get_ydata()) == [1.0, 0.5, 20 / 60]
    assert list(accuracy.lines[1].get_ydata()) == [50.0, 50.0, 50.0]


def test_many_passes_have_one_point_each_the_mean_of_their_reports() -> None:
    lines = [row for row in rows(6, per_pass=25, every=10) if row["split"] == "train"]
    ends = [{"step": 25 * k, "epoch": k, "split": "train", "loss": 0.0} for k in range(1, 7)]
    both = sorted([*lines, *ends], key=lambda row: (row["step"], row["loss"]))
    unique = [row for row, after in zip(both, [*both[1:], None], strict=True)
              if after is None or after["step"] != row["step"]]  # fmt: skip
    curves, _ = learning({"train": unique})
    x, y = curves["loss"]["train"]
    assert x == [1, 2, 3, 4, 5, 6]
    # Reports after steps 10, 20 and 25 tell of 10, 10 and 5 steps.
    assert y[0] == pytest.approx((10 * 10 / 10 + 10 * 10 / 20 + 5 * 0.0) / 25)


def test_every_metric_of_a_pass_is_over_all_its_samples_at_the_same_steps() -> None:
    """R² and perplexity of whole passes, against those of the targets and errors themselves."""
    random = np.random.default_rng(0)
    train, r2, perplexity = [], [], []
    for number in range(1, 7):
        targets = random.standard_normal((25, 64)) + 3
        errors = 0.3 * random.standard_normal((25, 64))
        for first, last in ((0, 10), (10, 20), (20, 25)):
            mse = float((errors[first:last] ** 2).mean())
            part = {"mse": mse, "r2": 1 - mse / targets[first:last].var()}
            step = 25 * (number - 1) + last
            train.append({"step": step, "epoch": number, "loss": mse, **part}
                         | {"perplexity": float(np.exp(mse))})  # fmt: skip
        r2.append(1 - (errors**2).mean() / targets.var())
        perplexity.append(np.exp((errors**2).mean()))
    for name, expected in (("r2", r2), ("perplexity", perplexity)):
        kept = ("step", "epoch", "loss", "mse", name)
        curves, _ = learning({"train": [{key: row[key] for key in kept} for row in train]})
        assert curves[name]["train"][0] == curves["loss"]["train"][0] == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(curves[name]["train"][1], expected, rtol=1e-3)


def test_the_smaller_last_batch_of_a_pass_is_no_dip_of_the_iterations() -> None:
    train = [
        {"step": step, "forward_iterations": 4.0 if step % 21 == 0 else 9.0}
        | {"solver_samples": 3.0 if step % 21 == 0 else 64.0}
        for step in (21, 42, 50, 63, 84, 100)
    ]
    assert iterations(train) == {"forward": ([50.0, 100.0], [9.0, 9.0])}
    for row in train:  # of a run of before, which does not say
        del row["solver_samples"]
    assert iterations(train)["forward"][0] == [21.0, 42.0, 50.0, 63.0, 84.0, 100.0]


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_vector_graphics(
    make_run: Any, capsys: pytest.CaptureFixture[str], kind: str, begins: bytes
) -> None:
    run = make_run("a", metrics=rows(2))
    assert main(["plot", f"run={run}", f"format={kind}"]) == 0
    path = Path(capsys.readouterr().out.splitlines()[0])
    assert path.suffix == f".{kind}"
    first = path.read_bytes()
    assert first.startswith(begins)
    assert main(["plot", f"run={run}", f"format={kind}"]) == 0
    assert path.read_bytes() == first  # same run, same bytes
    assert main(["plot", f"run={run}", "format=jpg"]) == 2
    assert "format=jpg: choose from png, pdf, svg." in capsys.readouterr().err


def test_less_than_a_pass_is_drawn_against_the_step() -> None:
    lines = [{"step": step, "epoch": 1, "split": "train", "loss": 1.0} for step in (1, 2, 3)]
    curves, against = learning({"train": lines})
    assert against == "training step"
    assert curves["loss"]["train"][0] == [1.0, 2.0, 3.0]


def test_steps_that_were_done_again_count_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "split": "train", "loss": loss}
             for step, loss in ((10, 1.0), (20, 0.9), (30, 0.8), (20, 0.7), (30, 0.6))]  # fmt: skip
    text = "\n".join(map(json.dumps, lines))
    path.write_text(f"{text}\nnot json\n[1]\n" + '{"split": "val"}\n')
    assert [row["loss"] for row in read_metrics(path)["train"]] == [1.0, 0.7, 0.6]
    assert read_metrics(tmp_path / "absent") == {}


def test_a_lone_entry_of_a_large_matrix_is_seen() -> None:
    large = np.zeros((3000, 1201))
    large[1234, 1200] = 1.0
    shrunk = figures._largest_of_tiles(large, 600)
    assert max(shrunk.shape) <= 600
    assert shrunk.max() == 1.0
    assert np.count_nonzero(shrunk) == 1


def test_spy_plot_tells_shapes_and_sparsity() -> None:
    blocks = {"A": np.eye(4), "B": np.ones((4, 2)), "C": np.ones((3, 4)), "D": np.zeros((3, 2))}
    titles = [axes.get_title(loc="left") for axes in figures.spy_plot(blocks).axes[:4]]
    assert [title.split("\n")[1] for title in titles] == [
        "25 % nonzero",
        "100 % nonzero",
        "100 % nonzero",
        "0 % nonzero",
    ]
    assert [title.split()[1] for title in titles] == ["4×4", "4×2", "3×4", "3×2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "takes one run"),
        (("run=runs/train/good", "other"), "takes one run"),
        (("rnu=runs/train/good",), "Did you mean 'run'"),
        (("run=",), "has no value"),
        (("run=runs/train/god",), "Did you mean 'runs/train/good'"),
        (("run=good",), "Did you mean 'runs/train/good'"),
        (("run=runs/train",), "the newest of the 2 below it"),
        (("run=runs/train/good/config.yaml",), "Its run is runs/train/good"),
        (("run=runs/train/empty",), "nothing to draw"),
    ],
)
def test_wrong_input_is_one_line_and_2(
    make_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    make_run("train/good", metrics=rows(1))
    make_run("train/empty")
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *arguments]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert says in output.err


def test_a_damaged_checkpoint_is_named(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("a", metrics=rows(1), config=config_of(ImplicitConfig(hidden_dim=8)))
    save_weights(run, ImplicitModel(6, 3, 8))
    path = run / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert main(["plot", f"run={run}"]) == 2
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 2  # the curves need no checkpoint
    assert str(path) in output.err
    assert "damaged" in output.err


def test_a_checkpoint_of_another_model(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("a", config=config_of(ImplicitConfig(hidden_dim=9)))
    save_weights(run, ImplicitModel(6, 3, 8))
    assert main(["plot", f"run={run}"]) == 2
    assert "another model" in capsys.readouterr().err


def test_a_configuration_that_names_code_is_refused(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(ImplicitConfig(hidden_dim=8))
    config["model"]["_target_"] = "os.system"
    run = make_run("a", config=config)
    save_weights(run, ImplicitModel(6, 3, 8))
    assert main(["plot", f"run={run}"]) == 2
    assert "_target_" in capsys.readouterr().err
