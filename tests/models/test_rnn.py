"""The implicit RNN against a loop in float64, finite differences, and torchidl."""

from __future__ import annotations

import gc
import importlib
import warnings

import pytest
import torch

from idl_core import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionTriu,
    ImplicitFunctionWarning,
    ImplicitRNN,
    ImplicitRNNCell,
)
from idl_core.activations import ACTIVATIONS
from idl_core.wellposed import PROJECTIONS

VARIANTS = {
    "plain": {},
    "bias": {"bias": True},
    "no_D": {"no_D": True},
    "low_rank": {"is_low_rank": True, "rank": 2},
    "triangular": {"f": ImplicitFunctionTriu},
    "free": {"f": ImplicitFunction},
}
EXACT = {"tol": 1e-13, "grad_tol": 1e-13, "mitr": 2000, "grad_mitr": 2000}


def loop(cell: ImplicitRNNCell, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The two equations, iterated from zero at each step until nothing changes."""
    layer = cell.layer
    A, phi, outputs = layer.effective_A(), layer.f.activation.phi, []
    for u in x.unbind(1):
        U = torch.cat((u, h), 1)
        if layer.bias:
            U = torch.cat((U, torch.ones_like(U[:, :1])), 1)
        X = torch.zeros(len(U), len(A), dtype=U.dtype)
        Z = U @ layer.B.T
        for _ in range(5000):
            previous, X = X, phi(X @ A.T + Z)
            if float((X - previous).detach().abs().max()) < 1e-15:
                break
        h = X @ layer.C.T + (0 if layer.D is None else U @ layer.D.T)
        outputs.append(h)
    return torch.stack(outputs, 1)


def a_cell(scale: float = 2.0, n: int = 5, hidden: int = 3, **options) -> ImplicitRNNCell:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(2, n, hidden, **EXACT, **options).double()
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if not name.endswith("D"):  # its recurrent part is nearly a rotation: it would explode
                parameter.mul_(scale)
    return cell


def of_parameters(module: torch.nn.Module):
    """module's output as a function of its inputs and parameters, and the parameters' values."""
    names = [name for name, _ in module.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in module.parameters()]

    def output(x, h0, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, named, (x, h0))

    return output, values


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_are_those_of_a_loop(variant: str) -> None:
    scale = 1.0 if variant == "free" else 2.0
    cell = a_cell(scale, **VARIANTS[variant])
    x = torch.randn(4, 9, 2, dtype=torch.float64)
    h0 = torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        outputs, last = cell(x, h0)
        torch.testing.assert_close(outputs, loop(cell, x, h0), atol=1e-11, rtol=0)
        torch.testing.assert_close(last, outputs[:, -1])
        torch.testing.assert_close(cell.last(x, h0), last)
        zeros, _ = cell(x)
        torch.testing.assert_close(zeros, cell(x, torch.zeros(4, 3, dtype=torch.float64))[0])


# A variant meets an activation only in its slopes, which relu has from the output and silu from the
# argument.
@pytest.mark.parametrize(
    ("activation", "variant"),
    [
        *((name, "plain") for name in ACTIVATIONS),
        *((name, other) for name in ("relu", "silu") for other in VARIANTS if other != "plain"),
    ],
)
def test_gradcheck(activation: str, variant: str) -> None:
    scale = 1.0 if variant == "free" else 2.0
    cell = a_cell(scale, n=3, hidden=2, activation=activation, **VARIANTS[variant])
    output, values = of_parameters(cell)
    x = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, (x, h0, *values))


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradcheck_of_every_projection(projection: str) -> None:
    cell = a_cell(6.0, projection=projection)
    output, values = of_parameters(cell)
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, (x, h0, *values))


@pytest.mark.parametrize("whole", [False, True])
def test_gradcheck_of_the_model(whole: bool) -> None:
    torch.manual_seed(0)
    model = ImplicitRNN(1, 2, 4, 3, **EXACT).double()
    names = [name for name, _ in model.named_parameters()]

    def output(x, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(model, named, (x,), {"return_sequence": whole})

    x = torch.randn(2, 5, 1, dtype=torch.float64, requires_grad=True)
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(output, (x, *values))


def test_gradcheck_of_an_activation_written_by_hand() -> None:
    class SiLU(ImplicitFunctionInf):
        @staticmethod
        def phi(X):
            return X * torch.sigmoid(X)

    cell = a_cell(n=3, hidden=2, f=SiLU)
    output, values = of_parameters(cell)
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, (x, h0, *values))


@pytest.mark.parametrize("T", [1, 3, 4, 5, 13, 150])
def test_any_length(T: int) -> None:
    """Lengths around the boundaries of what is solved together, gradients included."""
    cell = a_cell(1.0)  # larger, a state may grow over so many steps
    x = torch.randn(3, T, 2, dtype=torch.float64)
    h0 = torch.randn(3, 3, dtype=torch.float64)
    weight = torch.randn(3, T, 3, dtype=torch.float64)
    ours = torch.autograd.grad((cell(x, h0)[0] * weight).sum(), list(cell.parameters()))
    layer, h, total = cell.layer, h0, 0.0
    for t in range(T):  # one implicit model after another: T autograd nodes
        h = layer(torch.cat((x[:, t], h), 1))
        total = total + (h * weight[:, t]).sum()
    theirs = torch.autograd.grad(total, list(cell.parameters()))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-9, rtol=1e-9)


def test_slow_contraction_is_accelerated() -> None:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(2, 30, 3, **EXACT).double()
    with torch.no_grad():
        cell.layer.A.uniform_(0, 1)  # row sums of 15, cut down to 0.99
        cell.layer.B.abs_()
    x = torch.rand(4, 12, 2, dtype=torch.float64)
    with torch.no_grad():
        outputs, _ = cell(x)
        expected = loop(cell, x, torch.zeros(4, 3, dtype=torch.float64))
    assert int(cell.last_solution.forward.iterations.max()) < 300
    torch.testing.assert_close(outputs, expected, atol=1e-9, rtol=1e-9)


def test_large_states_take_the_same_path() -> None:
    cell = a_cell(1.0, n=90, is_low_rank=True, rank=3)
    x = torch.randn(4, 20, 2, dtype=torch.float64)
    h0 = torch.zeros(4, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(cell(x)[0], loop(cell, x, h0), atol=1e-10, rtol=0)


def test_residual_is_honest() -> None:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(1, 20, 22)
    x = torch.randn(16, 40, 1)
    outputs, _ = cell(x)
    outputs.sum().backward()
    for solution in (cell.last_solution.forward, cell.last_solution.adjoint):
        assert solution.residual.shape == (16,)
        assert bool(solution.converged.all())
    assert float(cell.last_solution.forward.residual.max()) <= 3e-6
    exact = loop(cell.double(), x.double(), torch.zeros(16, 22, dtype=torch.float64))
    assert float((outputs - exact).detach().abs().max()) < 1e-5


def test_not_converging_warns_once() -> None:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(1, 20, 22, mitr=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cell(torch.randn(4, 30, 1))
    assert [w.category for w in caught] == [ImplicitFunctionWarning]
    assert not bool(cell.last_solution.forward.converged.all())
    assert float(cell.last_solution.forward.residual.max()) > 3e-6


def test_adjoint_that_does_not_converge_warns() -> None:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(1, 20, 22, grad_mitr=1)
    outputs, _ = cell(torch.randn(4, 5, 1))
    with pytest.warns(ImplicitFunctionWarning, match="adjoint"):
        outputs.sum().backward()


def test_one_node_keeps_the_states_alone() -> None:
    """What the graph holds on to is linear in T and independent of the iterations."""

    def kept(T: int, **options) -> int:
        torch.manual_seed(0)
        cell = ImplicitRNNCell(1, 20, 22, **options)
        x = torch.randn(8, T, 1)
        held: list[torch.Tensor] = []

        def pack(tensor):
            held.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            last = cell.last(x)
        del last
        gc.collect()
        large = [t for t in held if t.numel() >= 8 * T]
        return sum(t.numel() for t in large if t.data_ptr() != x.data_ptr())

    assert kept(100) == 100 * 8 * 20
    assert kept(200) == 200 * 8 * 20
    assert kept(100, tol=1e-6) == 100 * 8 * 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    model = ImplicitRNN(1, 2, 6, 4).to(dtype)
    assert model(torch.randn(3, 5, 1, dtype=dtype)).dtype == dtype


def test_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    model = ImplicitRNN(1, 1, 6, 4)
    x = torch.randn(3, 5, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    torch.testing.assert_close(loss, model(x).square().mean(), rtol=0.05, atol=1e-3)


def test_shapes_of_unusual_batches() -> None:
    model = ImplicitRNN(1, 2, 6, 4)
    assert model(torch.randn(0, 5, 1)).shape == (0, 2)
    assert model(torch.randn(3, 5, 1), return_sequence=True).shape == (3, 5, 2)
    h0 = torch.randn(3, 4)
    outputs, last = model.recurrent(torch.randn(3, 0, 1), h0)
    assert outputs.shape == (3, 0, 4)
    assert torch.equal(last, h0)


def test_wrong_shapes_are_refused() -> None:
    model = ImplicitRNN(1, 2, 6, 4)
    with pytest.raises(ValueError, match=r"x has shape \(3, 5, 2\)"):
        model(torch.randn(3, 5, 2))
    with pytest.raises(ValueError, match=r"h0 has shape \(2, 4\), not \(3, 4\)"):
        model(torch.randn(3, 5, 1), torch.randn(2, 4))
    with pytest.raises(ValueError, match="input_dim"):
        ImplicitRNN(0, 2, 6, 4)


def test_same_as_torchidl_with_its_weights() -> None:
    pytest.importorskip("torchidl", exc_type=ImportError)
    peer = importlib.import_module("torchidl.implicit_rnn_model")
    torch.manual_seed(0)
    theirs = peer.ImplicitRNN(1, 3, 20, 22)
    ours = ImplicitRNN(1, 3, 20, 22, projection="global")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(8, 30, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


def test_the_tutorial_runs() -> None:
    from idl import ImplicitRNN as FromIdl

    torch.manual_seed(0)
    x, y = torch.randn(50, 20, 1), torch.randn(50, 1)
    model = FromIdl(input_dim=1, output_dim=1, hidden_dim=10, implicit_hidden_dim=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.MSELoss()(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"is_low_rank": True, "rank": 2}])
def test_an_untrained_cell_remembers(options) -> None:
    torch.manual_seed(0)
    cell = ImplicitRNNCell(2, 20, 8, **options).double()
    with torch.no_grad():
        recurrent = cell.layer.D[:, 2:10]
        sizes = torch.linalg.svdvals(recurrent)
        torch.testing.assert_close(sizes, torch.full_like(sizes, 0.9), atol=1e-5, rtol=0)
        x = torch.randn(1, 25, 2, dtype=torch.float64)
        other = x.clone()
        other[:, 0] += 1
        first = (cell(x)[0] - cell(other)[0]).norm(dim=-1)[0]
    assert first[-1] > 0.9**24 * first[0] / 3  # with random weights there: 1e-14 of it


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_figures_are_of_all_steps(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of large states may end at rounding error: that is said, and counts as converged."""
    monkeypatch.setattr("idl_core.equilibrium.solution._unreachable", set())
    torch.manual_seed(0)
    cell, x = ImplicitRNNCell(2, 20, 10, kernel=kernel, no_D=True), torch.randn(5, 8, 2)
    x[:, :7] *= 1e4  # all but the last
    with pytest.warns(ImplicitFunctionWarning, match="finer than"), torch.no_grad():
        cell(x)
    solution = cell.last_solution.forward
    assert solution is not None
    assert solution.all_converged
    assert solution.converged.all()
    assert float(solution.residual.max()) > solution.tol
    assert (solution.residual <= solution.stats.bound).all()
    assert solution.iterations.shape == (5,)


def test_figures_of_steps_that_are_solved_one_by_one() -> None:
    torch.manual_seed(0)
    cell, x = ImplicitRNNCell(2, 6, 3, f=ImplicitFunctionTriu), torch.randn(4, 5, 2)
    residuals, h = [], torch.zeros(4, 3)
    with torch.no_grad():
        for u in x.unbind(1):
            h = cell.last(u[:, None], h)
            residuals.append(cell.last_solution.forward.residual)
        cell.last(x)
    assert torch.equal(cell.last_solution.forward.residual, torch.stack(residuals).amax(0))


def test_outputs_may_be_written_to() -> None:
    cell, x = ImplicitRNNCell(2, 6, 3, bias=True), torch.randn(4, 5, 2)
    for outputs in (cell(x)[0], cell.last(x)):
        outputs.mul_(2).sum().backward()
