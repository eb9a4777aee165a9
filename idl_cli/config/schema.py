"""The configuration of idl, typed: what each group may hold, and within which bounds.

The YAML in conf/ gives the same keys their values; a test holds the two together. Where a group has
several options (model: implicit, mlp), each is a class here, told apart by `name`. To add one: a
class in the union below, a builder in build.py, a file in conf/.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from idl_cli.config.implicit_options import Activation, ImplicitOptions, check_rank
from idl_cli.config.sequence_options import (
    AttentionConfig,
    GPTConfig,
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    SpikyConfig,
    TextConfig,
    TimeSeriesConfig,
)
from idl_cli.config.typed_settings import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    OpenFraction,
    Positive,
    Range,
    annotations_of,
    names_of,
    read_settings,
)


@dataclass(frozen=True)
class ImplicitConfig(ImplicitOptions):
    """X = φ(AX + BU), Ŷ = CX + DU."""

    name: Literal["implicit"] = "implicit"
    hidden_dim: Count = 100
    init_from: str | None = None

    def __post_init__(self) -> None:
        check_rank(self.rank, self.is_low_rank, "hidden_dim", self.hidden_dim)


@dataclass(frozen=True)
class MLPConfig:
    """The explicit baseline: linear layers with an activation between them."""

    name: Literal["mlp"] = "mlp"
    hidden_dims: tuple[Count, ...] = (100,)
    activation: Activation = "relu"
    bias: bool = True


@dataclass(frozen=True)
class CNNConfig:
    """The explicit baseline on pictures: strided convolutions with an activation between them."""

    name: Literal["cnn"] = "cnn"
    channels: tuple[Count, ...] = (8, 16)
    kernel_size: Count = 3
    activation: Activation = "relu"
    bias: bool = True

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size}: it must be odd")


@dataclass(frozen=True)
class DataConfig:
    """Samples without an order: pictures and arrays; `path` for the user's own."""

    name: Literal[
        "digits", "mnist", "fashion_mnist", "cifar10", "image_folder", "arrays"
    ] = "digits"  # fmt: skip
    root: str | None = None
    path: str | None = None
    val_fraction: Fraction = 0.1
    download: bool = True


@dataclass(frozen=True)
class AdamConfig:
    name: Literal["adam"] = "adam"
    lr: Positive = 5e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0


@dataclass(frozen=True)
class AdamWConfig:
    name: Literal["adamw"] = "adamw"
    lr: Positive = 1e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.01


@dataclass(frozen=True)
class SGDConfig:
    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.05
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0")


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"] = "constant"
    warmup_steps: Natural = 0


@dataclass(frozen=True)
class CosineConfig:
    name: Literal["cosine"] = "cosine"
    warmup_steps: Natural = 0
    final: Annotated[float, Range(0, 1)] = 0.0


@dataclass(frozen=True)
class StepConfig:
    name: Literal["step"] = "step"
    warmup_steps: Natural = 0
    every_epochs: Count = 10
    gamma: Annotated[float, Range(0, 1, open_low=True)] = 0.1


@dataclass(frozen=True)
class TrainerConfig:
    """How long, how, and on what; see `idl_core.training.Settings`."""

    max_epochs: Count | None = 20
    max_steps: Count | None = None
    batch_size: Count = 64
    eval_batch_size: Count = 1000
    eval_every: Count | None = None
    log_every: Count = 50
    checkpoint_seconds: NonNegative = 10.0
    grad_clip: Positive | None = None
    precision: Literal["32", "64", "bf16"] = "32"
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    monitor: str = "loss"
    patience: Count | None = None
    device: str = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: str = "1"
    resume: str | None = None

    @property
    def device_name(self) -> str:
        """The device that `device` and `accelerator` name together."""
        if self.accelerator == "auto":
            return self.device
        wanted = "cpu" if self.accelerator == "cpu" else "cuda"
        return self.device if self.device.startswith(wanted) else wanted

    def __post_init__(self) -> None:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs or max_steps is needed: one of them ends the training")
        check_device(self.device)
        if self.device not in ("auto", self.device_name):
            raise ValueError(f"device={self.device}: trainer.accelerator={self.accelerator} is not")
        if self.devices != "auto" and not re.fullmatch(r"[1-9]\d{0,3}", self.devices):
            raise ValueError(f"devices={self.devices}: it must be a whole number from 1, or auto")


@dataclass(frozen=True)
class SweepConfig:
    """What `-m` is told beside its jobs."""

    resume: str | None = None


@dataclass(frozen=True)
class NoLoggerConfig:
    """The local record alone."""

    name: Literal["none"] = "none"


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases beside the local record."""

    name: Literal["wandb"] = "wandb"
    mode: Literal["auto", "online", "offline"] = "auto"
    project: str = "idl"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


ModelConfig = (
    ImplicitConfig
    | MLPConfig
    | CNNConfig
    | RNNConfig
    | GRUConfig
    | LSTMConfig
    | AttentionConfig
    | GPTConfig
)
AnyDataConfig = DataConfig | SpikyConfig | TimeSeriesConfig | TextConfig
OptimizerConfig = AdamConfig | AdamWConfig | SGDConfig
SchedulerConfig = ConstantConfig | CosineConfig | StepConfig
LoggerConfig = NoLoggerConfig | WandbConfig


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `idl train` is told."""

    name: str
    model: ModelConfig
    data: AnyDataConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    logger: LoggerConfig = field(default_factory=NoLoggerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    debug: bool = False

    def __post_init__(self) -> None:
        check_run_name(self.name)
        check_model_takes(self.model, self.data)


@dataclass(frozen=True)
class EvalDataConfig:
    """The data of an evaluation; what is null is as it was in training."""

    name: str | None = None
    root: str | None = None
    path: str | None = None
    val_fraction: Fraction | None = None
    download: bool | None = None
    column: str | None = None
    look_back: Count | None = None
    horizon: Count | None = None
    level: Count | None = None
    test_fraction: OpenFraction | None = None
    rows: tuple[Natural, ...] | None = None
    block_size: Count | None = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class EvalConfig:
    """Everything that `idl eval` is told."""

    run: str
    name: str
    data: EvalDataConfig = field(default_factory=EvalDataConfig)
    checkpoint: Literal["best", "last"] = "best"
    split: Literal["train", "val", "test"] = "test"
    batch_size: Count | None = None
    device: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        check_run_name(self.name)
        check_device(self.device)


def train_config(values: object) -> TrainConfig:
    """The typed configuration out of plain values. Raises: InputError."""
    return read_settings(TrainConfig, values)


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values, the reverse of reading it; tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(inner) for name, inner in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def known_keys(kind: type) -> dict[str, list[str]]:
    """The dotted keys that a configuration class takes, all options of its groups together.

    Returns: key -> the options that have it ('model.rank' -> ['implicit']); none at the top.
    """
    keys: dict[str, list[str]] = {}
    for group, hint in annotations_of(kind).items():
        keys[group] = []
        for option in (hint, *get_args(hint)):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                for name in annotations_of(option):
                    keys.setdefault(f"{group}.{name}", []).extend(names_of(option))
    return keys


def check_run_name(name: str) -> None:
    """Raise ValueError unless `name` can be part of a folder's name, and of that one only."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.,=+@-]{0,99}", name, re.ASCII):
        raise ValueError(
            f"name={' '.join(name.split())[:60]!r}: it names a folder; use letters, digits and "
            "_ . , = + @ - (a letter or digit first, at most 100)"
        )


def check_device(device: str) -> None:
    """Raise ValueError unless `device` is written like one."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device={device}: choose auto, cpu, cuda or cuda:<number>")


def check_model_takes(model: ModelConfig, data: AnyDataConfig) -> None:
    """Raise ValueError where data of this kind mean nothing to the model.

    The vector models read a window of a series as a vector; arrays can hold sequences, so that only
    their shape tells.
    """
    is_text = isinstance(data, TextConfig)
    is_series = isinstance(data, SpikyConfig | TimeSeriesConfig)
    if isinstance(model, AttentionConfig | GPTConfig):
        if not is_text:
            raise ValueError(
                f"model={model.name} reads text, which data={data.name} is not: choose "
                "data=pydoc, shakespeare or text"
            )
    elif is_text:
        raise ValueError(
            f"model={model.name} does not read text, which data={data.name} is: choose "
            "model=attention or gpt"
        )
    elif isinstance(model, RNNConfig | GRUConfig | LSTMConfig) and not (
        is_series or data.name == "arrays"
    ):
        raise ValueError(
            f"model={model.name} reads series, which data={data.name} is not: choose "
            "data=spiky or timeseries, or model=implicit or mlp"
        )
