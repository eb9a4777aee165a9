"""A whole sequence in one launch against the torch path in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from idl_core import ImplicitRNN, ImplicitRNNCell

EXACT = {"tol": 1e-12, "grad_tol": 1e-12, "mitr": 2000, "grad_mitr": 2000}


def both(device: str, *sizes: int, **options: object) -> tuple[ImplicitRNN, ImplicitRNN]:
    """The model on Triton, and the same in float64 on torch."""
    torch.manual_seed(0)
    # Row sums end below kappa by a few units in the last place, of float32 or of float64: by 1e-6,
    # which 1 / (1 - kappa) multiplies.
    options = {"kappa": 0.9} | options
    model = ImplicitRNN(*sizes, kernel="triton", **options)
    exact = ImplicitRNN(*sizes, kernel="torch", **options, **EXACT)
    with torch.no_grad():  # rows at the bound and a memory: more than initial weights have
        for p in model.parameters():
            p.mul_(1.5)
    exact.load_state_dict(model.state_dict())
    return model.to(device), exact.double()


def outcome(model: ImplicitRNN, x: Tensor, **how: object) -> list[Tensor]:
    """Output and gradients."""
    x = x.clone().requires_grad_()
    y = model(x, **how)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    (y * weight).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


def watch_projection(model: ImplicitRNN) -> list[float]:
    """The largest gradients of projected matrices, as backward comes to them.

    A projection's gradient is a difference of terms of that size, which may be 0: no float32 is
    nearer to it than the terms are known.
    """
    function, found = model.recurrent.layer.f, []
    project = function._project

    def watched(A: Tensor, radius: float) -> Tensor:
        projected = project(A, radius)
        projected.register_hook(lambda grad: found.append(float(grad.abs().max())))
        return projected

    function._project = watched
    return found


@pytest.mark.parametrize(
    ("sizes", "m", "T", "sequence", "options"),
    [
        ((2, 1, 12, 6), 9, 2, True, {"activation": "relu"}),
        ((1, 1, 20, 22), 2, 4, False, {"activation": "tanh", "bias": True}),
        ((3, 2, 17, 1), 3, 3, True, {"activation": "silu", "no_D": True}),
        ((1, 1, 10, 5), 3, 1, True, {"activation": "sigmoid", "is_low_rank": True, "rank": 2}),
        ((1, 1, 1, 1), 1, 3, False, {"activation": "leaky_relu"}),
    ],
)
def test_against_float64(
    sizes: tuple[int, ...], m: int, T: int, sequence: bool, options: dict, device: str
) -> None:
    model, exact = both(device, *sizes, **options)
    x = torch.randn(m, T, sizes[0], generator=torch.Generator().manual_seed(2))
    found = outcome(model, x.to(device), return_sequence=sequence)
    terms = watch_projection(exact)
    expected = outcome(exact, x.double(), return_sequence=sequence)
    assert terms
    names = ["output", "inputs", *(name for name, _ in model.named_parameters())]
    for name, one, other in zip(names, found, expected, strict=True):
        projected = name.rpartition(".")[2] in ("A", "L", "R")
        scale = max(1e-3, float(other.abs().max()), *(terms if projected else ()))
        assert float((one.cpu() - other).abs().max()) <= 1e-4 * scale
    for solved in (model.last_solution.forward, model.last_solution.adjoint):
        assert solved.all_converged
        assert solved.iterations.shape == (m,)
        assert 1 <= int(solved.iterations.min()) <= int(solved.iterations.max()) <= 60


def test_initial_states_and_sequences_of_nothing(device: str) -> None:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(2, 8, 5, kernel="triton").to(device)
    reference = copy.deepcopy(cell).double()
    reference.layer.f.kernel = "torch"
    x, h0 = torch.randn(3, 3, 2, device=device), torch.randn(3, 5, device=device)
    grads = []
    for model, dtype in ((cell, torch.float32), (reference, torch.float64)):
        start = h0.clone().to(dtype).requires_grad_()
        outputs, last = model(x.to(dtype), start)
        assert torch.equal(outputs[:, -1], last)
        outputs[:, 1].sum().backward()
        grads.append(start.grad.double())
    assert float((grads[0] - grads[1]).abs().max()) <= 1e-5
    assert cell(x[:0])[0].shape == (0, 3, 5)
    assert cell(x[:, :0])[0].shape == (3, 0, 5)


@pytest.mark.filterwarnings("ignore::idl_core.ImplicitFunctionWarning")
def test_what_is_not_finite_stays_with_its_sample(device: str) -> None:
    model, _ = both(device, 1, 1, 12, 6)
    x = torch.randn(4, 3, 1, device=device)
    clean = model(x)
    x[2, 1] = float("nan")
    broken = model.recurrent.last(x)
    assert model.last_solution.forward.converged.tolist() == [True, True, False, True]
    assert torch.equal(model.linear(broken)[[0, 1, 3]], clean[[0, 1, 3]])
    assert not broken[2].isfinite().any()


def test_a_gradient_is_solved_as_if_it_were_alone(device: str) -> None:
    model, _ = both(device, 1, 1, 12, 6)
    x = torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(3)).to(device)
    x.requires_grad_()
    found = []
    for odd in (1.0, 1e20):
        weight = torch.tensor([1.0, 1.0, odd, 1.0], device=device)[:, None]
        found.append(torch.autograd.grad((model(x) * weight).sum(), x)[0])
        assert model.last_solution.adjoint.all_converged
    assert torch.equal(found[0][[0, 1, 3]], found[1][[0, 1, 3]])


def test_too_wide_a_chain_is_refused(device: str) -> None:
    model = ImplicitRNN(1, 1, 100, 100, kernel="triton").to(device)
    with pytest.raises(ValueError, match="100 states and 100 hidden features do not fit on chip"):
        model(torch.randn(2, 3, 1, device=device))
