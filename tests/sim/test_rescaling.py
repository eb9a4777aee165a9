"""Scaling a network into the ball leaves what it computes, and makes an exact answer feasible."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from idl.sim import SIM, NotRescalable, rescaled
from idl.sim.solvers import LeastSquareSolver
from idl_core.models import CNN, MLP


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_outputs_stay_and_inner_norms_are_bounded(activation: str, bias: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(20, 7)
    network = MLP(7, 3, (16, 12, 9), activation, bias=bias)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5)
    before = [p.clone() for p in network.parameters()]
    scaled = rescaled(network, 0.9, inputs)
    torch.testing.assert_close(scaled(inputs), network(inputs), rtol=1e-4, atol=1e-3)
    linear = [m for m in scaled.modules() if isinstance(m, nn.Linear)]
    for layer in linear[1:-1]:
        assert layer.weight.abs().sum(1).max() <= 0.9 * (1 + 1e-6)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_of_a_convolution_it_is_the_norm_of_the_matrix_that_it_applies() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 1, 12, 12, dtype=torch.float64)
    network = CNN((1, 12, 12), 4, (3, 5, 2)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    scaled = rescaled(network, 0.8, inputs)
    torch.testing.assert_close(scaled(inputs), network(inputs))
    second = scaled.layers[2]  # type: ignore[index]
    columns = torch.eye(3 * 36, dtype=torch.float64).reshape(-1, 3, 6, 6)
    with torch.no_grad():
        matrix = (second(columns) - second(0 * columns)).flatten(1).T
    assert float(matrix.abs().sum(1).max()) == pytest.approx(0.8)


def test_the_implicit_model_of_a_rescaled_network_is_exact() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(400, 6, dtype=torch.float64)
    network = MLP(6, 3, (10, 8), bias=False).double()
    with torch.no_grad():
        network.layers[2].weight.mul_(10)  # type: ignore[operator, union-attr]
    scaled = rescaled(network, 0.99, inputs)
    sim = SIM("relu", dtype=torch.float64).train(LeastSquareSolver(tol=0.0), scaled, [inputs])
    assert sim.quality is not None
    assert sim.quality.norm_inf_A <= 0.99 * (1 + 1e-9)
    torch.testing.assert_close(sim(inputs), network(inputs), rtol=1e-5, atol=1e-5)


class Residual(nn.Module):
    def __init__(self, size: float = 1.0) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(6, 6, bias=False) for _ in range(3))
        with torch.no_grad():
            self.second.weight.mul_(10)
            self.last.weight.mul_(size)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        out: torch.Tensor = self.last(x + self.relu(self.second(x)))
        return out


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (MLP(6, 3, (8, 8), "tanh"), "Tanh"),
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()), "BatchNorm1d"),
        (Residual(), "one after the other"),
        (Residual(1e-6), "one after the other"),
    ],
)
def test_networks_that_scaling_would_change_are_refused(network: nn.Module, told: str) -> None:
    with pytest.raises(NotRescalable, match=told):
        rescaled(network, 0.5, torch.randn(9, 6))
