"""Wrong command lines drawn at random from a seed: every command, kinds mixed."""

from __future__ import annotations

import random
from collections.abc import Callable

# Settings by command, with values of the wrong type or out of range.
_TRAIN = {
    "model.hidden_dim": ("0", "-3", "1.5", "many", "1e400", "[1,2]", "null", "100000000"),
    "model.kappa": ("1", "-0.1", "nan", "inf", "half", "true"),
    "model.mitr": ("0", "-1", "2.5", "x"),
    "model.activation": ("reluu", "3", "null", "é"),
    "model.kernel": ("cuda", "numbaa", "~", "1"),
    "optimizer.lr": ("0", "-1", "nan", "fast", "1e999"),
    "scheduler.warmup_steps": ("-1", "0.5", "soon"),
    "trainer.batch_size": ("0", "-8", "1.5", "big", "{a:1}"),
    "trainer.max_epochs": ("-2", "1.5", "all"),
    "trainer.device": ("tpu", "cuda:x", "gpu", "cpu:"),
    "trainer.devices": ("0", "-1", "all", "1.5"),
    "trainer.precision": ("16", "half", "65"),
    "trainer.monitor": ("lss", "accuracyy", "3"),
    "trainer.resume": ("no/such/run", "~nobody-here/x", "/", "a#b", "名"),
    "data.val_fraction": ("1", "-0.5", "2", "half"),
    "seed": ("-1", "x", "1.5", "4294967296", "~"),
    "name": ("../x", "/x", "''", "a/b", "é"),
    "debug": ("perhaps", "2"),
}
_SIM = {
    "model.kappa": ("1", "-1", "nan"),
    "model.samples": ("0", "-4", "few"),
    "teacher.hidden_dims": ("[0]", "5", "[a]", "[]]", "[-1,2]"),
    "teacher.run": ("nowhere", "/", "é"),
    "solver.lambda_z": ("-1", "nan", "much"),
    "solver.max_iter": ("0", "-1", "1.5"),
    "solver.relaxation": ("0", "2", "-1"),
    "solver.l1_ratio": ("2", "-1"),
    "data": ("spiky", "pydoc", "digitss"),
    "seed": ("-1", "x"),
}
_RUN = (
    "nowhere",
    "no/such/run",
    "/",
    "/etc/hostname",
    "~nobody-here/x",
    "é",
    "a b",
    "x" * 300,
    ".",
)
_EVAL = {
    "run": _RUN,
    "split": ("tests", "3"),
    "checkpoint": ("worst", "0"),
    "device": ("gpu", "cuda:x"),
    "batch_size": ("0", "-1", "x"),
}
_GENERATE = {
    "run": _RUN,
    "temperature": ("-1", "nan", "hot"),
    "top_k": ("0", "-1", "x"),
    "max_new_tokens": ("0", "-1", "1.5"),
    "seed": ("-1", "x"),
}
_GROUPS = ("model", "data", "optimizer", "scheduler", "logger", "experiment", "hydra/launcher")
_BROKEN = (
    "=",
    "=1",
    "seed",
    "seed=[1",
    "seed={",
    "seed='1",
    "++",
    "~",
    "~nothing",
    "+x",
    "a.b.c=1",
)
_FLAGS = ("--foo", "-x", "--cfg", "--cfg=no", "--config-dir=none", "--config-name=none", "-sc")

Draw = Callable[[random.Random], list[str]]


def wrong_inputs(seed: int, count: int) -> list[list[str]]:
    """`count` command lines, each wrong in at least one place; equal for equal seeds."""
    source = random.Random(seed)
    kinds = list(_KINDS)
    return [_KINDS[kinds[number % len(kinds)]](source) for number in range(count)]


def _misspelt(source: random.Random, word: str) -> str:
    at = source.randrange(len(word))
    letter = source.choice("qzxj")
    return source.choice((word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]))


def _value(command: str, settings: dict[str, tuple[str, ...]]) -> Draw:
    def draw(source: random.Random) -> list[str]:
        keys = source.sample(sorted(settings), source.choice((1, 1, 2)))
        return [command, *(f"{key}={source.choice(settings[key])}" for key in keys)]

    return draw


def _key(source: random.Random) -> list[str]:
    command, settings = source.choice((("train", _TRAIN), ("sim", _SIM), ("generate", _GENERATE)))
    return [command, f"{_misspelt(source, source.choice(sorted(settings)))}=1"]


def _group(source: random.Random) -> list[str]:
    return [source.choice(("train", "sim")), f"{source.choice(_GROUPS)}={_misspelt(source, 'mlp')}"]


def _broken(source: random.Random) -> list[str]:
    return [source.choice(("train", "sim", "eval")), source.choice(_BROKEN)]


def _flag(source: random.Random) -> list[str]:
    command = source.choice(("train", "sim", "eval", "generate", "runs", "compare", "plot", "data"))
    return [command, source.choice(_FLAGS)]


def _sweep(source: random.Random) -> list[str]:
    key = source.choice(("seed", "optimizer.lr", "trainer.batch_size", "model.kappa"))
    words = [f"{key}=0.5,{source.choice(_TRAIN[key][:3])}", "model=implicit"]
    words.insert(source.randrange(3), "-m")
    return ["train", *words]


def _sweep_folder(source: random.Random) -> list[str]:
    key = source.choice(("sweep.resume", "hydra.sweep.dir"))
    place = source.choice(("/proc/none", "y" * 300, "~nobody-here/x"))
    return ["train", "-m", "seed=1,2", f"{key}={'/proc/none' if key[0] == 'h' else place}"]


def _reading(source: random.Random) -> list[str]:
    run = source.choice(_RUN[:-2])
    return source.choice((
        ["plot", f"run={run}"], ["plot", run, run], ["compare", run], ["compare", run, run],
        ["runs", "--sort"], ["runs", "--where", "loss"], ["runs", "--wher=a>1"],
        ["data", "prepare", _misspelt(source, "mnist")], ["data", _misspelt(source, "list")],
        ["data", "prepare"], [_misspelt(source, "train")], ["generate"], ["eval"],
    ))  # fmt: skip


def _data(source: random.Random) -> list[str]:
    kind = source.choice(("arrays", "image_folder", "timeseries", "text"))
    place = source.choice(("none", "/", "/etc/hostname", "~nobody-here/x", "a=b", "数据", "a (1)"))
    model = {"timeseries": "rnn", "text": "gpt"}.get(kind, "implicit")
    return ["train", f"model={model}", f"data={kind}", f"data.path={place}"]


_KINDS: dict[str, Draw] = {
    "value of train": _value("train", _TRAIN),
    "key": _key,
    "value of sim": _value("sim", _SIM),
    "group": _group,
    "value of eval": _value("eval", _EVAL),
    "broken word": _broken,
    "value of generate": _value("generate", _GENERATE),
    "flag": _flag,
    "sweep": _sweep,
    "folder of a sweep": _sweep_folder,
    "reading": _reading,
    "data": _data,
}
