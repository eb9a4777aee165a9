"""From a recurrent model's hidden state to what it predicts."""

from __future__ import annotations

from torch import Tensor, nn


class ForecastHead(nn.Linear):
    """A linear layer on a hidden state; with `residual_of`, what is learnt is a change.

        ŷ = W h + b,        or with residual_of        ŷ = u + W h + b

    where u is the input of the same time step. A residual head begins at 0: an untrained model is
    the persistence forecast, and training starts from there.

    Args:
        hidden_dim: features of h.
        output_dim: features of ŷ.
        residual_of: features of u, 1 or output_dim; None: u has no part.

    Raises:
        ValueError: u cannot be added to ŷ.
    """

    def __init__(self, hidden_dim: int, output_dim: int, residual_of: int | None = None) -> None:
        super().__init__(hidden_dim, output_dim)
        self.residual = residual_of is not None
        if residual_of not in (None, 1, output_dim):
            raise ValueError(
                f"residual=true adds the last input to the prediction: input_dim={residual_of} "
                f"must be 1 or output_dim={output_dim}"
            )
        if self.residual:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, h: Tensor, u: Tensor | None = None) -> Tensor:
        """h (..., hidden_dim) -> (..., output_dim); u (..., input_dim) where it is residual."""
        prediction = super().forward(h)
        if not self.residual:
            return prediction
        if u is None:
            raise ValueError("a residual head needs the input")
        return prediction + u
