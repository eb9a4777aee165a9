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
        hidden_dims: widths of the hidden layers.
        activation: a name in `ACTIVATION_LAYERS`.
        bias: whether the linear layers have one.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dims: Sequence[int] = (100,),
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATION_LAYERS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATION_LAYERS)}, not {activation!r}"
            )
        widths = [input_dim, *hidden_dims]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide, bias=bias), ACTIVATION_LAYERS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], output_dim, bias=bias))

    def forward(self, U: Tensor) -> Tensor:
        """Map a batch U (m, *input) to (m, output_dim)."""
        out: Tensor = self.layers(U.flatten(1))
        return out
