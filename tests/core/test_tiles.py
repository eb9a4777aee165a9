"""Equilibria by tiles against torch in float64, over sizes that fill tiles and that do not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idl_core import ImplicitFunctionWarning, ImplicitModel, ImplicitRNN, ImplicitRNNCell
from idl_core.activations import ACTIVATIONS
from idl_core.kernels.numba import dense, norm, sequence, support
from idl_core.kernels.numba import model as whole_model
from idl_core.kernels.numba.programs import SMOOTH

pytest.importorskip("numba", reason="tiles are compiled by numba: pip install 'idl[fast]'")

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-5}


@contextmanager
def torch_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support, "obstacle", lambda *_: "torch is asked")
        patch.setattr(norm, "rows_within", lambda *_: False)
        yield


@pytest.fixture
def solved_by_tiles(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether tiles have solved what they were given, one entry a solve."""
    told: list[bool] = []

    def watched(own: Callable[..., Any]) -> Callable[..., Any]:
        def solve(*arguments: object, **options: object) -> object:
            told.append(True)
            return own(*arguments, **options)

        return solve

    for module, names in (
        (dense, ("solve", "solve_adjoint")),
        (sequence, ("solve",)),
        (whole_model, ("forward", "backward")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, watched(getattr(module, name)))
    return told


def gradients(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Output, and gradients of a weighted sum of it with respect to inputs and parameters."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    output = model(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad((output * weight).sum(), [*inputs, *model.parameters()])]


def assert_as_in_float64(model: nn.Module, *inputs: Tensor) -> None:
    tol = TOLERANCE[inputs[0].dtype]
    ours = gradients(model, *inputs)
    with torch_alone():
        theirs = gradients(model.double(), *(x.double() for x in inputs))
    for own, exact in zip(ours, theirs, strict=True):
        assert own.dtype == inputs[0].dtype
        size = float(exact.detach().abs().max()) if exact.numel() else 0.0
        torch.testing.assert_close(own.double(), exact, atol=tol * max(1.0, size), rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "m"), [(2, 1), (3, 16), (20, 17), (37, 5), (100, 64), (8, 0)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", *SMOOTH])
def test_dense(activation: str, n: int, m: int, dtype: torch.dtype, solved_by_tiles) -> None:
    torch.manual_seed(0)
    model = ImplicitModel(6, 3, n, bias=True, activation=activation).to(dtype)
    assert_as_in_float64(model, torch.randn(m, 6, dtype=dtype))
    # Of smooth ones in float64, the adjoint alone, but of a single sample.
    whole = activation not in SMOOTH or dtype == torch.float32 or m == 1
    assert solved_by_tiles == [True] * (2 if whole else 1)


@pytest.mark.parametrize("activation", SMOOTH)
def test_low_rank_of_smooth_activations(activation: str, solved_by_tiles) -> None:
    torch.manual_seed(0)
    model = ImplicitModel(6, 3, 37, is_low_rank=True, rank=3, activation=activation)
    assert_as_in_float64(model, torch.randn(20, 6))
    assert solved_by_tiles == [True, True]


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_and_their_slopes(name: str) -> None:
    """To float32's rounding, from 0 to where they end; of what is no number they are none."""
    from idl_core.kernels.numba.programs.smooth import activate_tile, slope_of_tile

    small = torch.logspace(-30, 2, 4000)
    positive = torch.cat((small, torch.linspace(0, 12, 4000)))
    x = torch.cat((positive, -positive, torch.tensor([torch.nan] * 16)))
    y, slope, place = x.clone().view(-1, 16), x.clone().view(-1, 16), SMOOTH.index(name)
    activate_tile(y.numpy(), place)
    slope_of_tile(slope.numpy(), y.numpy(), place)
    activation, eps = ACTIVATIONS[name], torch.finfo(torch.float32).eps
    for found, function in ((y, activation.phi), (slope, activation.dphi)):
        exact, tol = function(x.double()), 8 * eps
        torch.testing.assert_close(
            found.flatten().double(), exact, rtol=tol, atol=tol, equal_nan=True
        )
    if name != "sigmoid":  # where they begin like a line, relative to themselves
        exact, tol = activation.phi(small.double()), 4 * eps
        torch.testing.assert_close(y.flatten()[:4000].double(), exact, rtol=tol, atol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "m", "r"), [(4, 1, 4), (37, 17, 3), (130, 64, 5), (8, 0, 2)])
@pytest.mark.parametrize("no_D", [False, True])
def test_low_rank(no_D: bool, n: int, m: int, r: int, dtype: torch.dtype, solved_by_tiles) -> None:
    torch.manual_seed(0)
    model = ImplicitModel(6, 3, n, no_D=no_D, is_low_rank=True, rank=r).to(dtype)
    with torch.no_grad():
        model.L.mul_(n)  # outside the ball
    assert_as_in_float64(model, torch.randn(m, 6, dtype=dtype))
    assert solved_by_tiles[:2] == [True, True]


@pytest.mark.parametrize(("p", "n", "q", "m"), [(2500, 70, 3, 20), (40, 67, 130, 1100)])
def test_sizes_beyond_the_blocks_of_products(p: int, n: int, q: int, m: int) -> None:
    torch.manual_seed(0)
    assert_as_in_float64(ImplicitModel(p, q, n), torch.randn(m, p))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "m", "T"), [(20, 32, 9), (5, 1, 1), (6, 17, 3), (4, 0, 2)])
@pytest.mark.parametrize("rank", [None, 2])
def test_sequence(
    rank: int | None, n: int, m: int, T: int, dtype: torch.dtype, solved_by_tiles
) -> None:
    torch.manual_seed(0)
    options = {"is_low_rank": True, "rank": rank} if rank else {}
    cell = ImplicitRNNCell(2, n, 7, **options).to(dtype)
    assert_as_in_float64(cell, torch.randn(m, T, 2, dtype=dtype), torch.randn(m, 7, dtype=dtype))
    assert solved_by_tiles[:2] == [True, True]


def test_inputs_that_are_not_contiguous(solved_by_tiles) -> None:
    torch.manual_seed(0)
    cell, x = ImplicitRNNCell(2, 6, 3), torch.randn(5, 40, 2)
    assert_as_in_float64(cell, x[:, ::2], torch.randn(3, 5).T)
    model, U = ImplicitModel(6, 3, 8), torch.randn(6, 40).T
    assert_as_in_float64(model, U[::2])
    assert all(solved_by_tiles[:2])


def test_a_warm_start_takes_fewer_iterations() -> None:
    torch.manual_seed(0)
    model, U = ImplicitModel(6, 3, 20), torch.randn(33, 6)
    with torch.no_grad():
        X = model.equilibrium(U)
        cold = model.last_solution.forward
        Y = model(U, X)
        warm = model.last_solution.forward
        torch.testing.assert_close(Y, model(U), atol=1e-5, rtol=0)
    assert cold is not None
    assert warm is not None
    assert int(warm.iterations.max()) == 1 < int(cold.iterations.max())


@pytest.mark.parametrize("rank", [None, 3])
def test_the_number_of_threads_changes_no_bit(rank: int | None) -> None:
    torch.manual_seed(0)
    options = {"is_low_rank": True, "rank": rank} if rank else {}
    cell, x = ImplicitRNNCell(1, 20, 22, **options), torch.randn(100, 12, 1)
    model, U = ImplicitModel(70, 7, 45, **options), torch.randn(100, 70)
    Z = 1e-3 * torch.randn(100, 45)  # of its tiles one takes more iterations than the others
    Z[-4:], Z[64:80] = 1e-3 * Z[-4:], 1e3 * Z[64:80]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.no_grad():
                hidden = cell(x)[0]
                X = model.f.solve(model.effective_A(), Z, None, model.last_solution)
            Y, _, *of_parameters = gradients(model, U)  # that of U is torch's
            results.append([hidden, X, Y, *of_parameters])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("n", [10, 30, 300])
def test_what_converges_slowly_is_accelerated(n: int, equal: bool, solved_by_tiles) -> None:
    torch.manual_seed(0)
    model = ImplicitModel(6, 3, n).double()
    with torch.no_grad():
        A = torch.rand(n, n, dtype=torch.float64)
        sums = A.sum(1, keepdim=True)
        model.A.copy_(0.99 * A / (sums if equal else sums.max()))
        model.B.abs_()
    U = torch.rand(20, 6, dtype=torch.float64)
    model(U).square().sum().backward()
    report, A, Z = model.last_solution, model.A.detach(), U @ model.B.detach().T
    X, plain, change = Z, 0, math.inf
    while change > model.f.tol:
        X, before = torch.relu(torch.addmm(Z, X, A.T)), X
        change, plain = float((X - before).abs().max()), plain + 1
    assert solved_by_tiles == [True, True]
    for solution in (report.forward, report.adjoint):
        assert solution is not None
        assert solution.all_converged
        assert int(solution.iterations.max()) <= plain / 2


@pytest.mark.parametrize("rank", [None, 2])
def test_gradients_of_what_converges_slowly(rank: int | None, solved_by_tiles) -> None:
    torch.manual_seed(0)
    options = {"is_low_rank": True, "rank": rank} if rank else {}
    model = ImplicitModel(6, 3, 30, tol=1e-8, grad_tol=1e-8, **options).double()
    with torch.no_grad():
        for name in "LR" if rank else "A":
            free, along = getattr(model, name), 0 if name == "R" else 1
            free.uniform_(0, 1).div_(free.sum(along, keepdim=True))
        model.B.abs_()
    assert_as_in_float64(model, torch.rand(20, 6, dtype=torch.float64))
    assert solved_by_tiles[:2] == [True, True]


def test_torch_is_torch_alone(solved_by_tiles) -> None:
    torch.manual_seed(0)
    model = ImplicitModel(6, 3, 8, kernel="torch")
    low = ImplicitModel(6, 3, 8, kernel="torch", is_low_rank=True, rank=2)
    smooth = ImplicitModel(6, 3, 8, kernel="torch", activation="tanh")
    rnn = ImplicitRNN(2, 1, 4, 3, kernel="torch")
    for one, shape in ((model, (5, 6)), (low, (5, 6)), (smooth, (5, 6)), (rnn, (5, 4, 2))):
        one(torch.randn(shape)).sum().backward()
    model.equilibrium(torch.randn(5, 6)).sum().backward()
    assert solved_by_tiles == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"is_low_rank": True, "rank": 2}, {"no_D": True}, {"activation": "gelu"}]
)
def test_a_sample_that_is_not_finite_is_told_and_disturbs_no_other(
    options: dict[str, Any], slow: bool, value: float, solved_by_tiles
) -> None:
    torch.manual_seed(0)
    model, U = ImplicitModel(6, 3, 30, **options), torch.rand(20, 6)
    if slow:
        with torch.no_grad():
            for M in (model.L, model.R) if model.is_low_rank else (model.A,):
                M.abs_()
                M.mul_(0.99 / M.sum(0 if M is getattr(model, "R", None) else 1).max())
    U[3] = value
    others = torch.arange(20) != 3
    alone = gradients(model, U[others])
    expected = model(U[others])
    with pytest.warns(ImplicitFunctionWarning, match="for 1 of 20 samples"):
        Y = model(U.requires_grad_())
    assert model.last_solution.forward is not None
    assert model.last_solution.forward.converged.tolist() == others.tolist()
    torch.testing.assert_close(Y[others], expected, atol=1e-4, rtol=0)
    weight = torch.zeros_like(Y)
    weight[others] = torch.linspace(-1, 1, 19 * 3).view(19, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitFunctionWarning)
        (grad,) = torch.autograd.grad(Y, U, weight)
    torch.testing.assert_close(grad[others], alone[1], atol=1e-4, rtol=0)
    assert solved_by_tiles == [True] * 5


def test_a_sequence_that_is_not_finite_ends_and_is_told(solved_by_tiles) -> None:
    torch.manual_seed(0)
    cell, x = ImplicitRNNCell(2, 6, 3), torch.randn(20, 4, 2)
    x[3, 1] = torch.nan
    others = torch.arange(20) != 3
    with torch.no_grad():
        alone = cell(x[others])[0]
        with pytest.warns(ImplicitFunctionWarning, match="for 1 of 20 samples"):
            found = cell(x)[0]
    torch.testing.assert_close(found[others], alone, atol=1e-5, rtol=0)
    assert solved_by_tiles == [True, True]


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("scale", [1e-30, 1e-17, 1e25])
def test_accelerated_gradients_of_any_size(scale: float, rank: int | None) -> None:
    """Squares of these are beyond float32: what is solved is the gradient in units of itself."""
    torch.manual_seed(0)
    options = {"is_low_rank": True, "rank": rank} if rank else {}
    model, U = ImplicitModel(6, 3, 40, **options), torch.rand(20, 6)
    with torch.no_grad():
        for name in "LR" if rank else "A":
            free, along = getattr(model, name), 0 if name == "R" else 1
            free.uniform_(0, 1).mul_(0.98 / free.sum(along, keepdim=True))
        model.B.abs_()
        model.C.abs_()
    found = []
    for size in (1.0, scale):
        Y = model(U)
        found.append(torch.autograd.grad(Y, list(model.parameters()), torch.full_like(Y, size)))
        adjoint = model.last_solution.adjoint
        assert adjoint is not None
        assert adjoint.all_converged
        assert int(adjoint.iterations.max()) < 40
    for one, other in zip(*found, strict=True):
        atol = 1e-4 * float(one.abs().max())
        torch.testing.assert_close(other / scale, one, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("options", [{}, {"is_low_rank": True, "rank": 2}])
@pytest.mark.parametrize("name", ["A", "L", "R", "B", "C", "D"])
def test_parameters_that_do_not_fit_together(name: str, options: dict[str, Any]) -> None:
    model = ImplicitModel(4, 3, 64, **options)
    if not hasattr(model, name):
        pytest.skip(f"no {name}")
    setattr(model, name, nn.Parameter(torch.ones(7, 2)))
    for solve in (model, model.equilibrium) if name in "ALRB" else (model,):
        with pytest.raises(RuntimeError, match=r"shape|size"):
            solve(torch.ones(40, 4))


@pytest.mark.parametrize("name", ["B", "C", "D", "X0"])
@pytest.mark.parametrize("to", ["meta", torch.float64])
def test_tensors_that_are_not_alike(name: str, to: str | torch.dtype) -> None:
    """Where torch says that they do not go together, nobody else makes something of them."""
    torch.manual_seed(0)
    outcomes: list[Any] = []
    for kernel in ("torch", "auto"):
        model, U, X0 = ImplicitModel(4, 3, 64, kernel=kernel), torch.ones(40, 4), None
        if name == "X0":
            X0 = torch.zeros(40, 64).to(to)
        else:
            setattr(model, name, nn.Parameter(getattr(model, name).detach().to(to)))
        try:
            outcomes.append(model(U, X0).shape)
        except (RuntimeError, NotImplementedError) as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("kind", ["dense", "recurrent"])
def test_torch_compile(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "recurrent":
        model, x = ImplicitRNN(2, 1, 4, 3), torch.randn(3, 1, 2)
    else:
        model, x = ImplicitModel(6, 3, 8), torch.randn(5, 6)
    torch._dynamo.reset()
    found = gradients(torch.compile(model, backend="eager"), x)
    for own, other in zip(found, gradients(model, x), strict=True):
        torch.testing.assert_close(own, other, atol=2e-5, rtol=0)


def test_residuals_are_those_of_the_result() -> None:
    torch.manual_seed(0)
    model, U = ImplicitModel(6, 3, 20), torch.randn(50, 6)
    with torch.no_grad():
        X = model.equilibrium(U)
        residual = ((X @ model.effective_A().T + U @ model.B.T).relu() - X).abs().amax(1)
    solution = model.last_solution.forward
    assert solution is not None
    assert float(residual.max()) <= solution.tol
    assert bool(solution.converged.all())
    assert solution.iterations.shape == (50,)
