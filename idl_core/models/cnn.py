"""The explicit baseline on pictures: a convolutional network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from idl_core.models.mlp import ACTIVATION_LAYERS, as_sizes, check_sizes

_OF_A_PICTURE = ("channels of the input", "height", "width")


class CNN(nn.Module):
    """Strided convolutions with an activation after each, and a linear layer on what they see.

    Halving by stride keeps the network linear between its activations, as max pooling would not.

    Args:
        input_shape: (channels, height, width) of a picture.
        output_dim: features of the output.
        channels: of each convolution's output; each halves height and width. Of one convolution a
            number will do.
        kernel_size: of each convolution, odd.
        activation: a name in `ACTIVATION_LAYERS`.
        bias: whether the layers have one.

    Raises:
        ValueError: a size out of range, or the input is no picture.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_dim: int,
        channels: int | Sequence[int] = (8, 16),
        kernel_size: int = 3,
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(
                f"a sample has the shape {tuple(input_shape)}, which is no picture: it must be "
                "(channels, height, width)"
            )
        if activation not in ACTIVATION_LAYERS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATION_LAYERS)}, not {activation!r}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}")
        channels = as_sizes("channels", channels)
        check_sizes(output_dim=output_dim, **dict(zip(_OF_A_PICTURE, input_shape, strict=True)))
        depth, height, width = input_shape
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((depth, *channels)):
            layers += [
                nn.Conv2d(before, after, kernel_size, 2, kernel_size // 2, bias=bias),
                ACTIVATION_LAYERS[activation](),
            ]
            height, width = -(-height // 2), -(-width // 2)
        seen = (channels[-1] if channels else depth) * height * width
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(seen, output_dim, bias=bias))

    def forward(self, U: Tensor) -> Tensor:
        """Map a batch U (m, channels, height, width) to (m, output_dim)."""
        out: Tensor = self.layers(U)
        return out
