"""The options of an equilibrium as a layer: of model=implicit, and of the step of model=rnn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from idl_cli.config.typed_settings import Count, Fraction, Positive

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu", "elu", "softplus"]
Kernel = Literal["auto", "torch", "triton"]


@dataclass(frozen=True)
class ImplicitOptions:
    """See `idl_core.models.ImplicitModel`. The model's own class gives name and sizes."""

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


def check_rank(rank: int | None, is_low_rank: bool, of: str, size: int) -> None:
    """Raise ValueError unless `rank` is given with is_low_rank alone, and within the size."""
    if is_low_rank and rank is None:
        raise ValueError("rank is needed with is_low_rank=true")
    if rank is not None and not is_low_rank:
        raise ValueError(f"rank={rank} has no effect unless is_low_rank=true")
    if rank is not None and rank > size:
        raise ValueError(f"rank={rank}: it must be at most {of}={size}")
