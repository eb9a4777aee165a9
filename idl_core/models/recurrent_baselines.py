"""The explicit recurrent baselines, GRU and LSTM, with the interface of `ImplicitRNN`."""

from __future__ import annotations

from torch import Tensor, nn

from idl_core.models.forecast_head import ForecastHead


class _Recurrent(nn.Module):
    """A recurrent layer of torch's, and a linear layer on its hidden state."""

    def __init__(self, recurrent: nn.RNNBase, output_dim: int, residual: bool) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.linear = ForecastHead(
            recurrent.hidden_size, output_dim, recurrent.input_size if residual else None
        )

    def forward(self, x: Tensor, *, return_sequence: bool = False) -> Tensor:
        """Predict from x (m, T, input_dim): after the last step (m, output_dim), or after all
        (m, T, output_dim)."""
        h, _ = self.recurrent(x)
        if not return_sequence:
            h, x = h[:, -1], x[:, -1]
        prediction: Tensor = self.linear(h, x)
        return prediction


class GRU(_Recurrent):
    """Gated recurrent units.

    Args:
        input_dim: features of a time step.
        output_dim: features of the prediction.
        hidden_dim: features that pass from step to step.
        num_layers: layers on top of each other.
        residual: predict the change from the last input, see `ForecastHead`.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dim: int,
        num_layers: int = 1,
        *,
        residual: bool = False,
    ) -> None:
        recurrent = nn.GRU(input_dim, hidden_dim, num_layers, batch_first=True)
        super().__init__(recurrent, output_dim, residual)


class LSTM(_Recurrent):
    """Long short-term memory.

    Args: as of `GRU`.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dim: int,
        num_layers: int = 1,
        *,
        residual: bool = False,
    ) -> None:
        recurrent = nn.LSTM(input_dim, hidden_dim, num_layers, batch_first=True)
        super().__init__(recurrent, output_dim, residual)
