"""The explicit recurrent baselines, GRU and LSTM, with the interface of `ImplicitRNN`."""

from __future__ import annotations

from torch import Tensor, nn


class _Recurrent(nn.Module):
    """A recurrent layer of torch's, and a linear layer on its hidden state."""

    def __init__(self, recurrent: nn.RNNBase, output_dim: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.linear = nn.Linear(recurrent.hidden_size, output_dim)

    def forward(self, x: Tensor, *, return_sequence: bool = False) -> Tensor:
        """Predict from x (m, T, input_dim): after the last step (m, output_dim), or after all
        (m, T, output_dim)."""
        h, _ = self.recurrent(x)
        prediction: Tensor = self.linear(h if return_sequence else h[:, -1])
        return prediction


class GRU(_Recurrent):
    """Gated recurrent units.

    Args:
        input_dim: features of a time step.
        output_dim: features of the prediction.
        hidden_dim: features that pass from step to step.
        num_layers: layers on top of each other.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(
        self, input_dim: int, output_dim: int, hidden_dim: int, num_layers: int = 1
    ) -> None:
        super().__init__(nn.GRU(input_dim, hidden_dim, num_layers, batch_first=True), output_dim)


class LSTM(_Recurrent):
    """Long short-term memory.

    Args: as of `GRU`.
    """

    def __init__(
        self, input_dim: int, output_dim: int, hidden_dim: int, num_layers: int = 1
    ) -> None:
        super().__init__(nn.LSTM(input_dim, hidden_dim, num_layers, batch_first=True), output_dim)
