"""A window of a series as its changes: what is seen, and what is told, is relative to its end.

For x (m, T, p) let d be its T - 1 changes and s their size, s² = mean d² + ε² over the window:

    u = d / s           what the model sees
    ŷ = x_T + s f(u)    what it predicts

A series that wanders (a temperature, a price) has levels in the test rows that the train rows never
had; its changes are alike. Normalising each window by itself and undoing it in the output is the
idea of reversible instance normalisation (Kim et al., ICLR 2022, eq. 1-3), here about the last
value rather than the mean. f = 0 is the persistence forecast, and training starts from there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SMALLEST = 1e-3  # ε, in units of the scaled series: a flat window is not blown up


def check_changes(input_dim: int, output_dim: int) -> None:
    """Raise ValueError unless the last input can be added to the prediction."""
    if input_dim not in (1, output_dim):
        raise ValueError(
            f"differences=true adds the last input to the prediction: input_dim={input_dim} "
            f"must be 1 or output_dim={output_dim}"
        )


def start_from_persistence(linear: nn.Linear) -> None:
    """Set the last layer to 0."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def changes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u (m, T - 1, p), the last value x_T (m, p) and s (m, p) of x (m, T, p).

    Raises: ValueError where there is no change to see, T < 2.
    """
    if x.shape[1] < 2:
        raise ValueError(f"differences=true needs at least 2 time steps, not {x.shape[1]}")
    d = x.diff(dim=1)
    s = torch.sqrt(d.square().mean(1) + _SMALLEST**2)
    return d / s.unsqueeze(1), x[:, -1], s
