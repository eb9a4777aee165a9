"""GRU and LSTM: torch's own layers behind the interface of ImplicitRNN."""

from __future__ import annotations

import pytest
import torch

from idl_core import GRU, LSTM


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_predictions_are_those_of_the_layer(kind: type) -> None:
    torch.manual_seed(0)
    model = kind(2, 3, 5, num_layers=2)
    x = torch.randn(4, 7, 2)
    hidden, _ = model.recurrent(x)
    expected = hidden @ model.linear.weight.T + model.linear.bias
    torch.testing.assert_close(model(x, return_sequence=True), expected)
    torch.testing.assert_close(model(x), expected[:, -1])
