"""The options of the groups model and data that are for sequences: series and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from idl_cli.config.implicit_options import ImplicitOptions, check_rank
from idl_cli.config.typed_settings import Count, Fraction, Natural, OpenFraction, Positive


@dataclass(frozen=True)
class RNNConfig(ImplicitOptions):
    """A recurrent network whose step is an implicit model."""

    name: Literal["rnn"] = "rnn"
    hidden_dim: Count = 22
    implicit_hidden_dim: Count = 20
    differences: bool = False

    def __post_init__(self) -> None:
        check_rank(self.rank, self.is_low_rank, "implicit_hidden_dim", self.implicit_hidden_dim)


@dataclass(frozen=True)
class GRUConfig:
    """The explicit recurrent baseline: gated recurrent units."""

    name: Literal["gru"] = "gru"
    hidden_dim: Count = 23
    num_layers: Count = 1
    differences: bool = False


@dataclass(frozen=True)
class LSTMConfig:
    """The explicit recurrent baseline: long short-term memory."""

    name: Literal["lstm"] = "lstm"
    hidden_dim: Count = 20
    num_layers: Count = 1
    differences: bool = False


@dataclass(frozen=True)
class AttentionConfig:
    """A GPT whose attention heads are equilibria; `fixed_point_iter` null solves to `tol`."""

    name: Literal["attention"] = "attention"
    n_layer: Count = 4
    n_head: Count = 4
    n_embd: Count = 128
    dropout: Fraction = 0.0
    fixed_point_iter: Count | None = 2
    attention_version: Literal["softmax", "lipschitz"] = "softmax"
    is_low_rank: bool = False
    rank: Count | None = None
    tol: Positive = 3e-6
    mitr: Count = 300

    def __post_init__(self) -> None:
        check_heads(self.n_embd, self.n_head)
        size = 3 * self.n_embd // self.n_head
        check_rank(self.rank, self.is_low_rank, "3 n_embd / n_head", size)


@dataclass(frozen=True)
class GPTConfig:
    """The explicit GPT: equal to attention in everything but the heads."""

    name: Literal["gpt"] = "gpt"
    n_layer: Count = 4
    n_head: Count = 4
    n_embd: Count = 128
    dropout: Fraction = 0.0

    def __post_init__(self) -> None:
        check_heads(self.n_embd, self.n_head)


@dataclass(frozen=True)
class SpikyConfig:
    """The synthetic series, made from the seed."""

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


def check_heads(n_embd: int, n_head: int) -> None:
    """Raise ValueError unless the heads share the width evenly."""
    if n_embd % n_head:
        near = max(n_head, round(n_embd / n_head) * n_head)
        raise ValueError(f"n_embd={n_embd}: it must be a multiple of n_head={n_head}, as {near} is")
