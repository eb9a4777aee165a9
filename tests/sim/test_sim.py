"""The SIM model: training, evaluation, and what it becomes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from idl.sim import SIM
from idl.sim.solvers import (
    ADMMSolver,
    BaseSolver,
    CVXSolver,
    LeastSquareSolver,
    ProjectedGDLowRankSolver,
)
from idl_core.equilibrium import Anderson, ImplicitFunctionWarning, Picard
from idl_core.sim.activation_names import activation_name
from idl_core.sim.equilibrium_states import equilibrium_states
from idl_core.sim.lipschitz import lipschitz_constant
from idl_core.wellposed import norm_inf, project_rows


def teacher(activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    act = activation or nn.ReLU()
    return nn.Sequential(
        nn.Linear(10, 8, bias=False),
        act,
        nn.Linear(8, 6, bias=False),
        act,
        nn.Linear(6, 3, bias=False),
    )


def digits(model: nn.Module, m: int = 120) -> DataLoader[tuple[Tensor, Tensor]]:
    """Inputs with the labels that the network gives them."""
    torch.manual_seed(1)
    x = torch.randn(m, 2, 5)
    return DataLoader(TensorDataset(x, model(x.flatten(1)).argmax(1)), batch_size=50)


class Flat(nn.Module):
    """A network on pictures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.flatten(1))


def test_a_network_within_the_ball_is_reproduced() -> None:
    model = teacher()
    with torch.no_grad():
        model[2].weight.mul_(0.9 / model[2].weight.abs().sum(1).max())
    data = digits(model)
    sim = SIM(dtype=torch.float64).train(ADMMSolver(1e-9, 1e-9, gap_tol=1e-6), Flat(model), data)
    inputs = data.dataset.tensors[0]  # type: ignore[attr-defined]
    torch.testing.assert_close(
        sim(inputs).float(), model(inputs.flatten(1)).detach(), atol=2e-3, rtol=0
    )
    assert sim.evaluate(data) > 0.98


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "solver", [ADMMSolver(), ProjectedGDLowRankSolver(rank=3, num_epoch=200)], ids=["admm", "low"]
)
def test_it_becomes_an_implicit_model(
    solver: BaseSolver, dtype: torch.dtype, standardize: bool
) -> None:
    data = digits(teacher())
    sim = SIM(dtype=dtype, standardize=standardize, atol=1e-6).train(solver, Flat(teacher()), data)
    model = sim.to_implicit_model()
    assert model.A.dtype == dtype
    assert project_rows(model.A, sim.radius) is model.A
    assert torch.equal(model.effective_A(), model.A)
    inputs = data.dataset.tensors[0].to(dtype)  # type: ignore[attr-defined]
    torch.testing.assert_close(model(inputs), sim(inputs), atol=2e-4, rtol=1e-4)
    model(inputs).square().mean().backward()
    assert model.A.grad is not None


def test_well_posedness_allows_for_a_steeper_activation() -> None:
    data = digits(teacher(nn.SiLU()))
    sim = SIM(activation_fn="silu").train(ADMMSolver(), Flat(teacher(nn.SiLU())), data)
    assert float(norm_inf(sim.weights["A"])) <= 0.99 / 1.09  # type: ignore[arg-type]
    inputs = data.dataset.tensors[0]  # type: ignore[attr-defined]
    torch.testing.assert_close(sim.to_implicit_model()(inputs), sim(inputs), atol=1e-4, rtol=1e-4)


def test_outputs_are_fitted_to_the_equilibria_that_standardised_weights_have() -> None:
    """C and D are then least squares on the states that the model computes, and no other."""
    torch.manual_seed(0)
    model = teacher(nn.Tanh())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    inputs = torch.randn(200, 10, dtype=torch.float64)
    sim = SIM("tanh", standardize=True, dtype=torch.float64, atol=1e-9)
    states = sim.get_states(model.double(), [inputs])
    sim.fit(ADMMSolver(1e-6, 1e-6, regen_states=True), states)
    wanted = model(inputs).detach()
    found = sim(inputs)
    assert sim.last_solution is not None
    features = torch.cat([sim.last_solution.value, inputs], 1)
    best = features @ torch.linalg.lstsq(features, wanted, driver="gelsd").solution
    least = float((best - wanted).square().sum())
    assert 1e-3 < least / float(wanted.square().sum()) < 0.1
    left = (found - wanted).square()
    assert float(left.sum()) <= 1.001 * least
    # What is told of the fit is what the model does, in the units of the network.
    assert sim.quality is not None
    assert sim.quality.output_mse == pytest.approx(float(left.mean()), rel=1e-6)
    with torch.no_grad():
        A, B = (sim.weights[name].numpy() for name in "AB")  # type: ignore[union-attr]
    scaled = sim.scalers.apply(states)  # type: ignore[union-attr]
    error = sim.scalers.Z.spread[:, None] * (scaled["Z"] - A @ scaled["X"] - B @ scaled["U"])  # type: ignore[union-attr]
    assert sim.quality.state_mse == pytest.approx((error**2).mean(), rel=1e-6)


def test_autocast_leaves_the_equilibrium_its_digits() -> None:
    data = digits(teacher())
    sim = SIM().train(ADMMSolver(), Flat(teacher()), data)
    inputs = data.dataset.tensors[0]  # type: ignore[attr-defined]
    expected = sim(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sim(inputs), expected)


@pytest.mark.parametrize(
    ("activation", "steepest"),
    [
        (nn.SELU(), 1.0507009873554805 * 1.6732632423543772),
        (F.selu, 1.0507009873554805 * 1.6732632423543772),
        (nn.Hardswish(), 1.5),
        (nn.LeakyReLU(1.7), 1.7),
        (nn.PReLU(init=1.25), 1.25),
        (nn.ELU(alpha=3.0), 3.0),
        (lambda x: 4 * torch.sin(x / 3 + 0.1), 4 / 3),
        (nn.Tanhshrink(), 1.0),
        (nn.GELU(), 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)),
    ],
)
def test_the_ball_allows_for_the_slope_of_any_activation(
    activation: Callable[[Tensor], Tensor], steepest: float
) -> None:
    assert lipschitz_constant(activation) == pytest.approx(steepest, abs=1e-4)
    assert lipschitz_constant(activation) >= steepest * (1 - 2e-6)
    assert SIM(activation).radius == pytest.approx(0.99 / max(1, steepest), rel=1e-4)


@pytest.mark.parametrize("activation", [nn.Hardshrink(), torch.exp, torch.square, torch.log])
def test_an_activation_without_a_bounded_slope_is_refused(
    activation: Callable[[Tensor], Tensor],
) -> None:
    with pytest.raises(ValueError, match="activation_fn has a slope of"):
        SIM(activation)


def test_an_activation_of_ones_own_is_evaluated_but_has_no_implicit_model() -> None:
    def bent(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.5 * x)

    model = teacher(nn.LeakyReLU(0.5))
    data = digits(model)
    sim = SIM(activation_fn=bent, standardize=True).train(ADMMSolver(), Flat(model), data)
    known = SIM(nn.LeakyReLU(0.5), standardize=True).train(ADMMSolver(), Flat(model), data)
    inputs = data.dataset.tensors[0]  # type: ignore[attr-defined]
    torch.testing.assert_close(sim(inputs), known(inputs))
    labels = data.dataset.tensors[1]  # type: ignore[attr-defined]
    share = float((sim(inputs).argmax(1) == labels).double().mean())
    assert sim.evaluate(data) == pytest.approx(share)
    assert share > 0.6
    with pytest.raises(ValueError, match="activation_fn must be one of"):
        sim.to_implicit_model()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (torch.nn.functional.relu, "relu"),
        (torch.relu, "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (torch.tanh, "tanh"),
        ("gelu", "gelu"),
        (nn.LeakyReLU(0.2), None),
        (lambda x: x, None),
    ],
)
def test_activations_are_recognised(given: object, name: str | None) -> None:
    assert activation_name(given) == name  # type: ignore[arg-type]


def test_least_squares_says_whether_it_is_well_posed() -> None:
    solver = LeastSquareSolver()
    sim = SIM().train(solver, Flat(teacher()), digits(teacher()))
    assert solver.report is not None
    norm = float(norm_inf(sim.weights["A"]))  # type: ignore[arg-type]
    assert ("not below 1" in solver.report.notes[0]) == (norm >= 1)


def test_a_solver_of_ones_own_needs_only_solve() -> None:
    class Zero(BaseSolver):
        def solve(self, X, U, Z, Y, model_config):  # type: ignore[no-untyped-def]
            assert {"activation_fn", "device", "atol", "kappa"} <= set(model_config)
            n, p, q = len(X), len(U), len(Y)
            return np.zeros((n, n)), np.zeros((n, p)), np.zeros((q, n)), np.zeros((q, p))

    sim = SIM().train(Zero(), Flat(teacher()), digits(teacher()))
    assert not sim(torch.randn(4, 10)).any()
    assert sim.quality is not None
    assert sim.quality.sparsity == {"A": 1.0, "B": 1.0, "C": 1.0, "D": 1.0}


def test_figures_have_the_names_of_the_summary() -> None:
    sim = SIM().train(ADMMSolver(), Flat(teacher()), digits(teacher()))
    assert sim.quality is not None
    wanted = {"norm_inf_A", "sparsity", "state_mse", "output_mse", "objective", "duality_gap"}
    assert wanted | {"solve_s", "solver"} <= set(sim.quality.figures())
    assert list(sim.quality.layer_mse) == ["model.1", "model.1'"]  # one module, called twice


def test_to_changes_dtype_and_stays_in_the_ball() -> None:
    sim = SIM(dtype=torch.float64).train(ADMMSolver(), Flat(teacher()), digits(teacher()))
    A = sim.to(dtype=torch.float32).weights["A"]
    assert A is not None
    assert A.dtype == torch.float32
    assert float(A.abs().sum(1).max()) <= 0.99
    sim.to_implicit_model()


def test_to_leaves_weights_that_are_in_no_ball() -> None:
    class Wide(BaseSolver):
        def solve(self, X, U, Z, Y, model_config):  # type: ignore[no-untyped-def]
            n, p, q = len(X), len(U), len(Y)
            return 0.999 * np.eye(n), np.ones((n, p)), np.ones((q, n)), np.ones((q, p))

    sim = SIM(dtype=torch.float64).train(Wide(), Flat(teacher()), digits(teacher()))
    A = sim.weights["A"]
    assert torch.equal(sim.to("cpu").weights["A"], A)  # type: ignore[arg-type]
    assert torch.equal(sim.to(dtype=torch.float32).weights["A"], A.float())  # type: ignore[union-attr, arg-type]


def test_before_training_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="call train first"):
        SIM()(torch.zeros(1, 3))


def test_wrong_inputs_are_named() -> None:
    sim = SIM().train(ADMMSolver(), Flat(teacher()), digits(teacher()))
    with pytest.raises(ValueError, match="SIM has 10"):
        sim(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="nothing to evaluate"):
        sim.evaluate([])
    for settings in ({"kappa": 1.0}, {"atol": 0.0}, {"activation_fn": "rellu"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            SIM(**settings)  # type: ignore[arg-type]


def test_evaluation_takes_a_fifth_of_picards_maps_on_the_bound() -> None:
    """Nonnegative rows on the bound: Picard iteration gains 1 % a step."""
    torch.manual_seed(0)
    A = torch.rand(40, 40, dtype=torch.float64)
    A = 0.99 * A / A.sum(1, keepdim=True)
    B, inputs = torch.rand(40, 5, dtype=torch.float64), torch.rand(30, 5, dtype=torch.float64)
    quick = equilibrium_states(A, B, inputs, torch.relu, 1e-8)
    shift = inputs @ B.T
    slow = Picard(1e-10, 10_000).solve(lambda x, out: torch.relu(x @ A.T + shift), 0 * shift)
    assert 5 * int(quick.iterations.max()) <= int(slow.iterations.max())
    torch.testing.assert_close(quick.value, slow.value, atol=2e-6, rtol=0)


def test_evaluation_leaves_the_users_own_warnings_alone() -> None:
    """Where the number format does not resolve the tolerance, a model of the user's is told so."""
    A = 0.99 * torch.eye(20)[torch.arange(20).roll(1)]
    B, inputs, tol = torch.full((20, 3), 100.0), torch.rand(5, 3), 1.2345e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equilibrium_states(A, B, inputs, torch.relu, tol)
    shift = inputs @ B.T
    with pytest.warns(ImplicitFunctionWarning, match="is finer than"):
        Anderson(7, tol, 5000).solve(
            lambda x, out: torch.relu(x @ A.T + shift), torch.zeros_like(shift)
        )


def test_the_tutorial_runs_as_written() -> None:
    data = digits(teacher(), 40)
    sim = SIM(activation_fn=torch.nn.functional.relu, device="cpu", dtype=torch.float32)
    solver = CVXSolver(regen_states=True)
    sim.train(solver=solver, model=Flat(teacher()), dataloader=data)
    assert sim.evaluate(data) > 0.6  # of three classes; a network that is not scaled
