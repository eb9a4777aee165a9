"""The options of the group data: a class for each kind of data set, chosen by `name`.

To add a data set: its name here, a file in conf/data/, and the data set itself in datasets/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from idl_cli.config.bounds import Count, Fraction, Natural, OpenFraction


@dataclass(frozen=True)
class DataConfig:
    """Pictures; `path` is the user's own file or folder."""

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "image_folder"] = "digits"
    root: str | None = None
    path: str | None = None
    val_fraction: Fraction = 0.1
    download: bool = True


@dataclass(frozen=True)
class ArraysConfig:
    """The user's own arrays; task and channels where they are not what they seem to be."""

    name: Literal["arrays"] = "arrays"
    root: str | None = None
    path: str | None = None
    val_fraction: Fraction = 0.1
    download: bool = True
    task: Literal["classification", "regression"] | None = None
    channels: Literal["first", "last"] | None = None


@dataclass(frozen=True)
class SpikyConfig:
    """The synthetic series, generated from the seed."""

    name: Literal["spiky"] = "spiky"
    look_back: Count = 60
    horizon: Count = 1
    level: Count = 7
    val_fraction: Fraction = 0.1


@dataclass(frozen=True)
class TimeSeriesConfig:
    """A column of the user's CSV or Parquet file; null: the last one."""

    name: Literal["timeseries"] = "timeseries"
    path: str | None = None
    column: str | None = None
    look_back: Count = 60
    horizon: Count = 1
    val_fraction: Fraction = 0.1
    test_fraction: OpenFraction = 0.2
    rows: tuple[Natural, ...] | None = None


@dataclass(frozen=True)
class TextConfig:
    """Text in windows of block_size tokens."""

    name: Literal["text", "shakespeare", "pydoc"] = "text"
    root: str | None = None
    path: str | None = None
    block_size: Count = 64
    tokenizer: Literal["characters", "gpt2"] = "characters"
    val_fraction: Fraction = 0.1
    test_fraction: OpenFraction = 0.1
    download: bool = True


SampleDataConfig = DataConfig | ArraysConfig
AnyDataConfig = SampleDataConfig | SpikyConfig | TimeSeriesConfig | TextConfig


@dataclass(frozen=True)
class EvalDataConfig:
    """The data of an evaluation; null means as in training."""

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
    task: Literal["classification", "regression"] | None = None
    channels: Literal["first", "last"] | None = None
