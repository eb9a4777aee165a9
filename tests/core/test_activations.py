"""What is said of each activation, against autograd and a fine grid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from idl_core.activations import ACTIVATIONS, DerivativeByAutograd

GRID = torch.linspace(-40, 40, 160_001, dtype=torch.float64)
TORCH = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "elu": F.elu,
    "softplus": F.softplus,
    "identity": lambda x: x,
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def test_all_are_known_here() -> None:
    assert set(ACTIVATIONS) == set(TORCH)


@every_activation
def test_value(name: str) -> None:
    activation, expected = ACTIVATIONS[name], TORCH[name](GRID)
    assert torch.equal(activation.phi(GRID), expected)
    assert torch.equal(activation.phi_(GRID.clone()), expected)
    assert torch.equal(GRID, torch.linspace(-40, 40, 160_001, dtype=torch.float64))


@every_activation
def test_slope_is_the_derivative(name: str) -> None:
    x = GRID[GRID.abs() > 1e-9].requires_grad_()  # some have a kink at 0
    (expected,) = torch.autograd.grad(TORCH[name](x).sum(), x)
    activation, x = ACTIVATIONS[name], x.detach()
    assert torch.allclose(activation.dphi(x), expected, rtol=1e-8, atol=1e-12)
    assert torch.allclose(DerivativeByAutograd(activation.phi)(x), expected, rtol=1e-8, atol=1e-12)
    if activation.dphi_of_output is not None:
        of_output = activation.dphi_of_output(activation.phi(x))
        assert torch.allclose(of_output, expected, rtol=1e-9, atol=1e-8)


@every_activation
def test_lipschitz_is_the_steepest_slope(name: str) -> None:
    activation = ACTIVATIONS[name]
    steepest = float(activation.dphi(GRID).abs().max())
    assert steepest <= activation.lipschitz <= steepest + 2e-4


@every_activation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    activation, x = ACTIVATIONS[name], torch.randn(7, dtype=dtype)
    functions = (activation.phi, activation.dphi, activation.dphi_of_output, activation.phi_)
    for function in functions:
        if function is not None:
            assert function(x.clone()).dtype == dtype


def test_the_slope_of_leaky_relu_is_exact_in_every_format() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        slope = ACTIVATIONS["leaky_relu"].dphi(torch.tensor([-1.0, 2.0], dtype=dtype))
        assert torch.equal(slope, torch.tensor([0.01, 1.0], dtype=dtype))
