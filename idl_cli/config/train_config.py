"""The configuration of `idl train` as a typed object.

conf/ has the same keys with their default values; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from idl_cli.config.bounds import Range
from idl_cli.config.data_options import AnyDataConfig, SpikyConfig, TextConfig, TimeSeriesConfig
from idl_cli.config.model_options import (
    AttentionConfig,
    GPTConfig,
    GRUConfig,
    LSTMConfig,
    ModelConfig,
    RNNConfig,
)
from idl_cli.config.training_options import (
    LoggerConfig,
    NoLoggerConfig,
    OptimizerConfig,
    SchedulerConfig,
    SweepConfig,
    TrainerConfig,
    check_run_name,
)
from idl_cli.config.typed_settings import read_settings


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of `idl train`."""

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


def train_config(values: object) -> TrainConfig:
    """The typed configuration out of plain values. Raises: InputError."""
    return read_settings(TrainConfig, values)


def check_model_takes(model: ModelConfig, data: AnyDataConfig) -> None:
    """Raise ValueError where the model cannot read data of this kind.

    The vector models read a window of a series as a vector. Arrays can hold sequences: whether they
    do is seen when they are loaded.
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
