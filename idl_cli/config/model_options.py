"""The options of the group model: a class for each model, chosen by `name`.

Options with the name of a field of `ImplicitSettings` or `AttentionSettings` in idl_core become
that field. They are repeated here with their bounds, since a configuration is checked without
importing torch; a test compares the two.

To add a model: a class here and in `ModelConfig`, its builder in build_model.py, a file in
conf/model/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from idl_cli.config.bounds import Count, Fraction, Positive

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu", "elu", "softplus"]
Kernel = Literal["auto", "torch", "numba", "triton"]


@dataclass(frozen=True)
class ImplicitOptions:
    """The options of an equilibrium layer: see `idl_core.models.ImplicitModel`.

    Subclasses, which are the models that have one, add the name and the sizes.
    """

    name: str = ""
    hidden_dim: Count = 1
    activation: Activation = "relu"
    wellposed: Literal["inf", "triu", "none"] = "inf"
    projection: Literal["ball", "row", "global"] = "global"
    kappa: Fraction = 0.99
    no_D: bool = False
    bias: bool = False
    is_low_rank: bool = False
    rank: Count | None = None
    mitr: Count = 300
    grad_mitr: Count = 300
    tol: Positive = 3e-6
    grad_tol: Positive = 3e-6
    kernel: Kernel = "auto"


@dataclass(frozen=True)
class ImplicitConfig(ImplicitOptions):
    """X = φ(AX + BU), Ŷ = CX + DU."""

    name: Literal["implicit"] = "implicit"
    hidden_dim: Count = 100
    init_from: str | None = None

    def __post_init__(self) -> None:
        check_rank(self.rank, self.is_low_rank, "hidden_dim", self.hidden_dim)


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
    """The explicit GPT: the same architecture with ordinary attention heads."""

    name: Literal["gpt"] = "gpt"
    n_layer: Count = 4
    n_head: Count = 4
    n_embd: Count = 128
    dropout: Fraction = 0.0

    def __post_init__(self) -> None:
        check_heads(self.n_embd, self.n_head)


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


def check_rank(rank: int | None, is_low_rank: bool, of: str, size: int) -> None:
    """Raise ValueError unless `rank` is given with is_low_rank alone, and within the size."""
    if is_low_rank and rank is None:
        raise ValueError("rank is needed with is_low_rank=true")
    if rank is not None and not is_low_rank:
        raise ValueError(f"rank={rank} has no effect unless is_low_rank=true")
    if rank is not None and rank > size:
        raise ValueError(f"rank={rank}: it must be at most {of}={size}")


def check_heads(n_embd: int, n_head: int) -> None:
    """Raise ValueError unless n_embd is a multiple of n_head."""
    if n_embd % n_head:
        near = max(n_head, round(n_embd / n_head) * n_head)
        raise ValueError(f"n_embd={n_embd}: it must be a multiple of n_head={n_head}, as {near} is")
