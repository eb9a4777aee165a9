"""A sample is solved as if it were alone, at any scale of its gradient, in torch and in numba."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idl_core import ImplicitFunctionWarning, ImplicitModel, ImplicitRNN

KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "smooth": {"activation": "tanh"},
    "low rank": {"low_rank": True, "rank": 12},
    "rank solved directly": {"low_rank": True, "rank": 3},
}
KERNELS = ("auto", "torch")
SCALES = (1e-30, 1e-17, 1e-6, 1.0, 1e10, 1e25)


def model_of(kind: str, kernel: str, slow: bool = True) -> ImplicitModel:
    """Of which A is positive, at 0.97 of what is a contraction: slow."""
    torch.manual_seed(0)
    model = ImplicitModel(5, 3, 30, kernel=kernel, **KINDS[kind])
    with torch.no_grad():
        if model.is_low_rank:
            model.L.uniform_(0.1, 1).div_(model.L.sum(1, keepdim=True)).mul_(0.97)
            model.R.uniform_(0.1, 1).div_(model.R.sum(0))
        else:
            model.A.uniform_(0.1, 1).div_(model.A.sum(1, keepdim=True)).mul_(0.97)
        model.B.abs_()
    return model


def rnn_of(kernel: str, activation: str = "relu") -> ImplicitRNN:
    torch.manual_seed(0)
    rnn = ImplicitRNN(2, 1, 12, 5, kernel=kernel, activation=activation)
    with torch.no_grad():
        layer = rnn.recurrent.layer
        layer.A.uniform_(0.1, 1).div_(layer.A.sum(1, keepdim=True)).mul_(0.9)
        for M in (layer.B, layer.C, layer.D):  # no state near relu's kink, where float32 may differ
            M.abs_().mul_(0.2)
    return rnn


def input_gradients(model: nn.Module, inputs: Tensor, weight: Tensor) -> Tensor:
    """Of the weighted sum of the outputs: each sample's own, (m, ...)."""
    inputs = inputs.detach().clone().requires_grad_()
    (model(inputs) * weight).sum().backward()
    assert inputs.grad is not None
    return inputs.grad


def check_scales(model: nn.Module, inputs: Tensor, q: int) -> None:
    m = len(inputs)
    weight = torch.randn(m, q, generator=torch.Generator().manual_seed(1))
    exact = input_gradients(model.double(), inputs.double(), weight.double())
    model.float()
    size = exact.flatten(1).abs().amax(1)
    of_each = torch.tensor(SCALES).repeat(math.ceil(m / len(SCALES)))[:m]
    for scale in (*(torch.full((m,), one) for one in SCALES), of_each):
        found = input_gradients(model, inputs, weight * scale[:, None]).double()
        wide = scale.double().view(m, *([1] * (inputs.dim() - 1)))
        error = ((found / wide) - exact).flatten(1).abs().amax(1) / size
        assert float(error.max()) <= 1e-3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_at_every_scale(kind: str, kernel: str) -> None:
    check_scales(model_of(kind, kernel), torch.rand(18, 5), 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_of_a_sequence_at_every_scale(activation: str, kernel: str) -> None:
    check_scales(rnn_of(kernel, activation), torch.rand(18, 6, 2), 1)


def check_alone(model: nn.Module, inputs: Tensor, q: int, value: float) -> None:
    """Outputs and gradients of the others do not change where one sample is not finite."""
    healthy = torch.arange(len(inputs)) != 3
    weight = torch.randn(len(inputs), q)
    alone_y = model(inputs[healthy]).detach()
    alone = input_gradients(model, inputs[healthy], weight[healthy])
    spoilt = inputs.clone()
    spoilt[3] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitFunctionWarning)
        y = model(spoilt).detach()
        solution = model.last_solution.forward
        found = input_gradients(model, spoilt, weight)
    assert not solution.all_converged
    assert torch.equal(solution.converged, healthy)
    assert torch.allclose(y[healthy], alone_y, rtol=1e-4, atol=2e-4)
    size = float(alone.abs().max())
    assert torch.allclose(found[healthy], alone, rtol=1e-3, atol=1e-3 * size)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_not_finite(kind: str, kernel: str, value: float) -> None:
    if kind == "smooth" and value == math.inf:
        pytest.skip("tanh of infinity is finite")
    check_alone(model_of(kind, kernel), torch.rand(20, 5), 3, value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sequence_that_is_not_finite(kernel: str, value: float) -> None:
    check_alone(rnn_of(kernel), torch.rand(20, 6, 2), 1, value)


def test_a_sequence_solved_step_by_step_beside_one_that_is_not_finite() -> None:
    """Slow enough that the steps go to the solver, which accelerates."""
    rnn = rnn_of("torch")
    with torch.no_grad():
        rnn.recurrent.layer.A.mul_(0.985 / 0.9)
    check_alone(rnn, torch.rand(8, 5, 2), 1, math.nan)
