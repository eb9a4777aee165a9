"""The explicit baseline: a multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATION_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


class MLP(nn.Module):
    """Linear layers with an activation between them.

    Args:
        input_dim: features of a flattened input.
        output_dim: features of the output.
        hidden_dims: widths of the hidden layers; of one, a number will do.
        activation: a name in `ACTIVATION_LAYERS`.
        bias: whether the linear layers have one.

    Raises:
        ValueError: a size out of range, or an activation that is unknown.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dims: int | Sequence[int] = (100,),
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATION_LAYERS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATION_LAYERS)}, not {activation!r}"
            )
        widths = [input_dim, *as_sizes("hidden_dims", hidden_dims)]
        check_sizes(input_dim=input_dim, output_dim=output_dim)
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide, bias=bias), ACTIVATION_LAYERS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], output_dim, bias=bias))

    def forward(self, U: Tensor) -> Tensor:
        """Map a batch U (m, *input) to (m, output_dim)."""
        out: Tensor = self.layers(U.flatten(1))
        return out


def as_sizes(name: str, sizes: int | Sequence[int]) -> list[int]:
    """The sizes of layers as a list; one number is one layer. Raises: ValueError."""
    listed = [sizes] if isinstance(sizes, int) else list(sizes)
    if not all(isinstance(size, int) and size >= 1 for size in listed):
        raise ValueError(f"{name} must be whole numbers of at least 1, not {sizes!r}")
    return listed


def check_sizes(**sizes: int) -> None:
    """Raise ValueError where a size, named by its argument, is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size!r}")
