"""The explicit recurrent baselines, GRU and LSTM, with the interface of `ImplicitRNN`."""

from __future__ import annotations

from torch import Tensor, nn

from idl_core.models.window_changes import changes, check_changes, start_from_persistence


class _Recurrent(nn.Module):
    """A recurrent layer of torch's, and a linear layer on its hidden state."""

    def __init__(self, recurrent: nn.RNNBase, output_dim: int, differences: bool) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.linear = nn.Linear(recurrent.hidden_size, output_dim)
        self.differences = differences
        if differences:
            check_changes(recurrent.input_size, output_dim)
            start_from_persistence(self.linear)

    def forward(self, x: Tensor, *, return_sequence: bool = False) -> Tensor:
        """Predict from x (m, T, input_dim): after the last step (m, output_dim), or after all
        (m, T, output_dim)."""
        if self.differences:
            if return_sequence:
                raise ValueError("return_sequence: with differences there is one prediction")
            u, last, size = changes(x)
            forecast: Tensor = last + size * self.linear(self.recurrent(u)[0][:, -1])
            return forecast
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
        differences: see the changes of the input and predict the next, see `window_changes`.

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
        differences: bool = False,
    ) -> None:
        recurrent = nn.GRU(input_dim, hidden_dim, num_layers, batch_first=True)
        super().__init__(recurrent, output_dim, differences)


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
        differences: bool = False,
    ) -> None:
        recurrent = nn.LSTM(input_dim, hidden_dim, num_layers, batch_first=True)
        super().__init__(recurrent, output_dim, differences)
