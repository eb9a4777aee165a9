"""The table of wrong input: exit code 2, one line that names what is wrong, nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from ..conftest import Idl

# what is typed, and what the line must say of it
WRONG = [
    # groups and keys
    (
        "model=implcit",
        "choose from attention, cnn, gpt, gru, implicit, lstm, mlp, rnn. Did you mean 'implicit'?",
    ),
    ("modle=implicit", "unknown key 'modle'. Did you mean 'model'?"),
    ("model.hiden_dim=3", "unknown key 'model.hiden_dim'. Did you mean 'model.hidden_dim'?"),
    ("data=minst", "Did you mean 'mnist'?"),
    ("optimizer=adan", "Did you mean 'adam'?"),
    ("scheduler=linear", "choose from constant, cosine, step"),
    ("logger=wandbb", "Did you mean 'wandb'?"),
    ("experiment=mnist", "experiment=mnist: choose from"),
    ("hydra/launcher=slurmm", "hydra/launcher=slurmm: choose from"),
    ("+foo=1", "unknown key 'foo'"),
    ("+model.foo=1", "unknown key 'model.foo'"),
    ("lr=1", "Did you mean 'optimizer.lr'?"),
    ("model.hidden_dims=[3]", "'model.hidden_dims' is a key of model=mlp"),
    ("model=mlp model.kappa=0.5", "'model.kappa' is a key of model=implicit"),
    ("optimizer=sgd optimizer.beta1=0.5", "is a key of optimizer=adam"),
    ("model=null", "model=null"),
    ("~model", "model"),
    ("model.name=gtp", "model.name=gtp: choose from implicit, mlp"),
    # types and ranges
    ("model.hidden_dim=abc", "model.hidden_dim=abc: it must be a whole number"),
    ("model.hidden_dim=1.5", "model.hidden_dim=1.5: it must be a whole number"),
    ("model.hidden_dim=", "model.hidden_dim=: it must be a whole number"),
    ("model.hidden_dim=-1", "model.hidden_dim=-1: it must be at least 1"),
    ("model.hidden_dim=0", "at least 1"),
    ("model.kappa=1", "model.kappa=1: it must be from 0"),
    ("model.kappa=-0.1", "model.kappa=-0.1"),
    ("model.tol=0", "model.tol=0: it must be above 0"),
    ("model.activation=rleu", "Did you mean 'relu'?"),
    ("model.kernel=tritn", "choose from auto, torch, numba, triton. Did you mean 'triton'?"),
    ("trainer.device=cpu model.kernel=triton", "model.kernel='triton' cannot solve this: "),
    ("model.kernel=triton model.wellposed=triu", "a triangular A needs no iteration"),
    ("model.wellposed=yes", "choose from inf, triu, none"),
    ("model.is_low_rank=true", "model.rank is needed"),
    ("model.rank=5", "model.rank=5 has no effect unless is_low_rank=true"),
    ("model.is_low_rank=true model.rank=101", "at most hidden_dim=100"),
    ("model=mlp model.hidden_dims=[10,0]", "model.hidden_dims[1]=0"),
    ("model=mlp model.hidden_dims=10", "it must be a list"),
    ("data.val_fraction=1", "data.val_fraction=1"),
    ("data.val_fraction=-0.5", "data.val_fraction=-0.5"),
    ("optimizer.lr=0", "optimizer.lr=0: it must be above 0"),
    ("optimizer.lr=fast", "optimizer.lr=fast: it must be a number"),
    ("optimizer.lr=nan", "optimizer.lr=nan"),
    ("optimizer=sgd optimizer.momentum=1", "optimizer.momentum=1"),
    ("trainer.batch_size=0", "trainer.batch_size=0"),
    ("trainer.max_epochs=null", "trainer.max_epochs or max_steps is needed"),
    ("trainer.max_epochs=-1", "trainer.max_epochs=-1"),
    ("trainer.grad_clip=0", "trainer.grad_clip=0"),
    ("trainer.precision=16", "choose from 32, 64, bf16"),
    ("trainer.cuda_graph=yes", "trainer.cuda_graph=yes: choose from auto, on, off"),
    ("trainer.cuda_graph=on trainer.device=cpu", "and this is on cpu; auto captures where it can"),
    ("trainer.device=gpu", "trainer.device=gpu: choose auto, cpu, cuda"),
    ("trainer.device=cuda:99", "trainer.device=cuda:99"),
    ("trainer.devices=0", "trainer.devices=0: it must be a whole number from 1, or auto"),
    ("trainer.devices=two", "trainer.devices=two"),
    ("trainer.devices=9999 trainer.device=cpu", "trainer.devices=9999: at most"),
    ("trainer.accelerator=tpu", "choose from auto, cpu, gpu"),
    ("trainer.accelerator=gpu trainer.device=cpu", "trainer.device=cpu"),
    ("trainer.monitor=acuracy", "Did you mean 'accuracy'?"),
    ("seed=x", "seed=x: it must be a whole number"),
    ("seed=-1", "seed=-1"),
    ("debug=maybe", "debug=maybe: it must be true or false"),
    ("name=../../elsewhere", "name='../../elsewhere'"),
    ("name=", "name=''"),
    ("name='${model.nam}'", "model.nam"),
    # sequences
    ("model=rnn data=digits", "model=rnn reads series, which data=digits is not"),
    ("model=lstm data=pydoc", "model=lstm does not read text"),
    ("model=attention data=spiky", "model=attention reads text, which data=spiky is not"),
    ("data=pydoc", "model=implicit does not read text, which data=pydoc is: choose model="),
    ("model=rnn data=arrays", "arrays needs data.path"),
    ("model=rnn model.is_low_rank=true", "model.rank is needed"),
    ("model=rnn model.is_low_rank=true model.rank=21", "at most implicit_hidden_dim=20"),
    ("model=gru model.kappa=0.5", "'model.kappa' is a key of model=implicit and model=rnn"),
    ("model=rnn model.differences=true data.horizon=0", "data.horizon=0: it must be at least 1"),
    ("model=attention model.n_head=5", "model.n_embd=128: it must be a multiple of n_head=5"),
    ("model=attention model.attention_version=hard", "choose from softmax, lipschitz"),
    ("model=attention model.fixed_point_iter=0", "model.fixed_point_iter=0"),
    ("model=gpt data.tokenizer=gpt3", "Did you mean 'gpt2'?"),
    ("model=gpt data.test_fraction=0", "data.test_fraction=0: it must be above 0"),
    ("model=gpt data.block_size=9999999", "too few for block_size=9999999"),
    ("model=gpt data=text", "text needs data.path"),
    ("model=gpt data=text data.path=damaged.npz", "damaged.npz is not UTF-8 text: byte"),
    ("model=rnn data.look_back=20000", "too few for look_back=20000"),
    ("model=rnn data=timeseries", "timeseries needs data.path"),
    ("model=rnn data=timeseries data.path=none.csv", "none.csv does not exist"),
    ("model=rnn data=timeseries data.path=/tmp", "/tmp is a folder"),
    ("model=rnn data=timeseries data.path=x data.rows=5", "data.rows=5: it must be a list"),
    # what is written
    ("model.hidden_dim", "settings are written key=value"),
    ("=3", "=3"),
    ("trainer.batch_size=[1", "cannot read 'trainer.batch_size=[1'"),
    ("model.hidden_dim=1,2", "several values need -m"),
    ("--foo", "unrecognized arguments: --foo"),
    ("--cfg=jobb", "invalid choice: 'jobb'"),
    ("--config-dir=none", "not found"),
    ("--config-name=foo", "there is no configuration 'foo'"),
    ("--experimental-rerun=x.pickle", "would unpickle"),
    ("-m model.hiden_dim=1,2", "Did you mean 'model.hidden_dim'?"),
    ("-m model=implicit,implcit", "Did you mean 'implicit'?"),
    # code by the back door
    ("+model._target_=os.system", "model._target_=os.system"),
    ("+_target_=os.system", "_target_=os.system"),
    # data, folders, runs
    ("data=arrays", "data.path"),
    ("data=arrays data.path=none.npz", "none.npz does not exist"),
    ("data=arrays data.path=damaged.npz", "damaged.npz is damaged"),
    ("data=digits data.path=x", "digits takes no path"),
    ("data=mnist data.root=nowhere data.download=false", "data=digits"),
    ("data=image_folder data.path=nowhere", "nowhere"),
    ("hydra.run.dir=/proc/idl", "cannot write the run directory '/proc/idl'"),
    ("hydra.run.dir=damaged.npz", "damaged.npz"),
    ("hydra.run.dir=", "hydra.run.dir=: it must be a folder"),
    ("hydra.run.dir='${nope}'", "hydra.run.dir: Interpolation key 'nope' not found"),
    ("hydra.run.dir=damaged.npz/below", "damaged.npz"),
    ("trainer.resume=nowhere", "trainer.resume=nowhere: there is no such folder"),
    ("trainer.resume=damaged.npz", "is a file, not a run directory"),
    ("trainer.resume=.", "trainer.resume=. is no run: it has neither"),
    # sweeps and clusters
    ("sweep.resume=nowhere", "sweep.resume=nowhere: it goes on with a sweep, and needs -m"),
    ("-m sweep.resume=nowhere", "sweep.resume=nowhere: there is no such folder"),
    ("-m sweep.resume=damaged.npz", "sweep.resume=damaged.npz: "),
    ("-m sweep.resume=.", "sweep.resume=.: it is no folder of a sweep"),
    ("-m sweep.resum=x", "Did you mean 'sweep.resume'?"),
    ("-m hydra/launcher=joblibb", "hydra/launcher=joblibb: choose from"),
    ("-m hydra/sweeper=optunna", "hydra/sweeper=optunna: choose from"),
    ("-m hydra/launcher=slurm hydra.launcher.partitoin=a", "hydra.launcher.partitoin"),
    ("-m hydra/launcher=joblib hydra.launcher.njobs=2", "hydra.launcher.njobs"),
    ("-m hydra.sweep.dir=/proc/idl seed=1,2", "/proc/idl"),
    ("trainer.device=cuda:0 trainer.devices=2", "trainer.device"),
]


@pytest.mark.parametrize(("typed", "said"), WRONG, ids=[typed for typed, _ in WRONG])
def test_wrong_input(idl: Idl, tmp_path: Path, typed: str, said: str) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 this was cut short \xff")
    answer = idl("train", *typed.split(" "))
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.startswith("idl: ")
    assert answer.err.count("\n") == 1, answer.err
    assert answer.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.npz"]


def test_labels_and_numbers_that_no_model_can_learn_from(idl: Idl, tmp_path: Path) -> None:
    x, y = np.ones((6, 2), np.float32), np.array([0, 1, 0, 1, 0, 1])
    np.savez(tmp_path / "nan.npz", x_train=x * np.nan, y_train=y, x_test=x, y_test=y)
    np.savez(tmp_path / "label.npz", x_train=x, y_train=y - 5, x_test=x, y_test=y)
    for name in ("nan.npz", "label.npz"):
        answer = idl("train", "data=arrays", f"data.path={name}")
        assert answer.code == 2
        assert answer.err.count("\n") == 1
        assert name in answer.err


RUN_IS_WRONG = {
    "checkpoint of another model": "belongs to another model or configuration",
    "checkpoint of another version": "has format '99'; this version of idl reads format 1",
    "no checkpoint of ours": "carries no training state",
    "configuration that names code": "model._target_=os.system",
    "configuration that leads elsewhere": "name='../../elsewhere'",
    "configuration of another command": "config.yaml",
    "no configuration": "it has no config.yaml",
}


@pytest.mark.parametrize("wrong", RUN_IS_WRONG)
def test_a_run_from_elsewhere_that_is_wrong(
    idl: Idl, tiny: list[str], tmp_path: Path, wrong: str
) -> None:
    idl("train", *tiny, "trainer.max_epochs=1", "hydra.run.dir=run")
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    config = run / "config.yaml"
    values = yaml.safe_load(config.read_text())
    if wrong == "checkpoint of another model":
        idl("train", *tiny, "model.hidden_dim=4", "trainer.max_epochs=1", "hydra.run.dir=other")
        for path in checkpoints.iterdir():
            path.write_bytes((tmp_path / "other" / "checkpoints" / path.name).read_bytes())
    elif wrong == "checkpoint of another version":
        for path in checkpoints.iterdir():
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() | {"format": "99"}
            save_file(tensors, path, metadata)
    elif wrong == "no checkpoint of ours":
        for path in checkpoints.iterdir():
            save_file({"weight": torch.zeros(2)}, path)
    elif wrong == "configuration that names code":
        values["model"]["_target_"] = "os.system"
        config.write_text(yaml.safe_dump(values))
    elif wrong == "configuration that leads elsewhere":
        config.write_text(yaml.safe_dump(values | {"name": "../../elsewhere"}))
    elif wrong == "configuration of another command":
        config.write_text("run: somewhere\nsplit: test\n")
    else:
        config.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    answer = idl("train", "trainer.resume=run")
    assert answer.code == 2
    assert answer.err.startswith("idl: ")
    assert RUN_IS_WRONG[wrong] in answer.err
    assert answer.err.count("\n") == 1, answer.err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_port_that_is_in_use(
    idl: Idl, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
        env = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
        for name, value in (env | {"MASTER_PORT": port}).items():
            monkeypatch.setenv(name, value)
        answer = idl("train", *tiny)
    assert answer.code == 2
    assert answer.err.startswith(f"idl: MASTER_PORT={port}: the ranks cannot meet there")
    assert answer.err.endswith("choose a free port\n")
    assert answer.err.count("\n") == 1, answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("launcher", "extra"),
    [("hydra/launcher=joblib", "sweep"), ("hydra/sweeper=optuna", "sweep"),
     ("hydra/launcher=slurm", "cluster"), ("hydra/launcher=ray", "ray")],
)  # fmt: skip
def test_a_launcher_that_is_not_installed(
    idl: Idl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, extra: str
) -> None:
    monkeypatch.setattr("idl_cli.hydra_app.plugins._is_installed", lambda package: False)
    answer = idl("train", "-m", launcher, "seed=1,2")
    assert answer.code == 2
    said = f"idl: {launcher}: it is not installed; pip install 'idl[{extra}]'\n"
    assert answer.err == said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "words", "said"),
    [
        ("optuna_sweeper", ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=few", "seed=1,2"],
         "hydra.sweeper.n_trials=few"),
        ("optuna_sweeper", ["hydra/sweeper=optuna", "seed=1"],
         "hydra/sweeper=optuna: all of its 20 trials would be the same"),
        ("joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=two", "seed=1,2"],
         "hydra.launcher.n_jobs=two"),
        ("submitit_launcher", ["hydra/launcher=slurm", "hydra.launcher.timeout_min=x", "seed=1,2"],
         "hydra.launcher.timeout_min=x"),
    ],
)  # fmt: skip
def test_what_a_launcher_or_a_sweeper_is_told_wrong(
    idl: Idl, tmp_path: Path, package: str, words: list[str], said: str
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{package}")
    answer = idl("train", "-m", *words)
    assert answer.code == 2
    assert answer.err.startswith(f"idl: {said}")
    assert answer.err.count("\n") == 1, answer.err
    assert not list(tmp_path.iterdir())


def test_debug_shows_where_it_was_found(idl: Idl) -> None:
    answer = idl("train", "model.kappa=1", "debug=true")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("idl: model.kappa=1")


def test_a_damaged_yaml_of_the_user(idl: Idl, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "bad.yaml").write_text("model: {hidden_dim: [\n")
    answer = idl("train", "--config-dir=mine", "experiment=bad")
    assert answer.code == 2
    assert answer.err.count("\n") == 1


def test_an_existing_empty_folder_is_not_removed(idl: Idl, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert idl("train", "hydra.run.dir=a/b/c", "trainer.monitor=x").code == 2
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a"]


def test_a_wrong_configuration_is_found_before_torch_is_loaded(tmp_path: Path) -> None:
    program = """
import sys
from idl_cli.main import main
assert main(["train", "model.kappa=1"]) == 2
assert main(["train", "model=implcit"]) == 2
assert main(["train", "--help"]) == 0
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_settings_that_do_nothing_are_said(idl: Idl, tiny: list[str]) -> None:
    words = [*tiny, "trainer.max_epochs=1", "trainer.patience=1", "data.val_fraction=0"]
    words += ["scheduler.warmup_steps=10"]
    answer = idl("train", *words, "trainer.resume=auto")
    assert answer.code == 0, answer.err
    assert "trainer.resume=auto goes on in hydra.run.dir=<folder>: this one is new" in answer.err
    assert "trainer.patience=1 does nothing" in answer.err
    assert "scheduler.warmup_steps=10: the training ends after 10 steps" in answer.err
    words = [*words, "scheduler.warmup_steps=9"]
    assert "warmup" not in idl("train", *words).err
