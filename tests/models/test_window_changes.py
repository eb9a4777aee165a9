"""Models of a window's changes: persistence before training, and free of level and scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from idl_core import GRU, LSTM, ImplicitRNN


def models(output_dim: int = 1) -> list[nn.Module]:
    torch.manual_seed(0)
    made: list[nn.Module] = [
        ImplicitRNN(1, output_dim, 6, 5, differences=True, tol=1e-12, grad_tol=1e-12),
        GRU(1, output_dim, 5, differences=True),
        LSTM(1, output_dim, 5, differences=True),
    ]
    return [model.double() for model in made]


def trained(model: nn.Module) -> nn.Module:
    """The model with weights as training may leave them."""
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.4, 0.4)
    return model


def walk(m: int = 4, T: int = 9) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(m, T, 1, dtype=torch.float64).cumsum(1)


def test_untrained_they_are_persistence() -> None:
    x = walk()
    for model in models(output_dim=3):
        torch.testing.assert_close(model(x), x[:, -1].expand(-1, 3))


def test_what_a_model_sees_has_no_level_and_no_scale() -> None:
    x = walk()
    for model in map(trained, models()):
        change = model(x) - x[:, -1]
        assert change.abs().max() > 1e-3
        moved = 30 * x + 500
        # Up to the smallest size that keeps a flat window from being divided by 0.
        torch.testing.assert_close(model(moved) - moved[:, -1], 30 * change, rtol=1e-4, atol=1e-4)


def test_a_flat_window_stays_where_it_is() -> None:
    flat = torch.full((2, 9, 1), 3.0, dtype=torch.float64)
    for model in map(trained, models()):
        assert (model(flat) - 3).abs().max() < 1e-2


def test_gradients() -> None:
    x = walk(m=2, T=4).requires_grad_()
    for model in map(trained, models()):
        assert torch.autograd.gradcheck(model, (x,), atol=1e-5)


def test_what_they_refuse() -> None:
    for kind, sizes in ((ImplicitRNN, (3, 2, 4, 5)), (GRU, (3, 2, 5)), (LSTM, (3, 2, 5))):
        with pytest.raises(ValueError, match="input_dim=3 must be 1 or output_dim=2"):
            kind(*sizes, differences=True)
    for model in models():
        with pytest.raises(ValueError, match="at least 2 time steps, not 1"):
            model(walk(T=1))
        with pytest.raises(ValueError, match="return_sequence"):
            model(walk(), return_sequence=True)
