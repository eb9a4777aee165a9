"""Maps as people write them: in place, with a buffer of their own, of the wrong kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core import Implicit, Phantom, Unrolled, fixed_point

from .solvers import every_solver

B = torch.tensor([[1.0, 2.0, 3.0]])
TRUTH = torch.tensor([[10.0, 20.0, 30.0]])


def with_a_buffer() -> Callable[[Tensor], Tensor]:
    buffer = torch.empty(1, 3)
    return lambda x: torch.add(B, x, alpha=0.9, out=buffer)


def half_in_place(x: Tensor) -> Tensor:
    """Its first entry is written to, the rest is computed from what it was."""
    out = 0.9 * x + B
    x.zero_()
    return out


MAPS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "in place": lambda: lambda x: x.mul_(0.9).add_(B),
    "in place, a view": lambda: lambda x: x.view(-1).mul_(0.9).view_as(x).add_(B),
    "its argument is spoiled": lambda: half_in_place,
    "in place, a module": lambda: lambda x: F.relu(0.9 * x + B, inplace=True),
    "one buffer": with_a_buffer,
}


@every_solver
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.filterwarnings("ignore:tol=.*finer")
def test_maps_that_work_in_place(make: Callable, kind: str) -> None:
    x0 = torch.zeros(1, 3)
    # What writes to a buffer of its own has no gradient.
    for gradients in (torch.no_grad, torch.no_grad if kind == "one buffer" else torch.enable_grad):
        with gradients():
            solution = fixed_point(MAPS[kind](), x0, make(max_iter=1000))
        assert solution.all_converged
        assert torch.allclose(solution.value, TRUTH, atol=2e-4)
        assert (solution.residual <= 1.5e-5).all()
        assert torch.count_nonzero(x0) == 0


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(400), Unrolled(400)], ids=repr)
@pytest.mark.parametrize("kind", ["in place", "in place, a view"])
def test_their_gradients(kind: str, adjoint: object) -> None:
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x0 = torch.zeros(1, 3, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        x = x if kind == "in place" else x.view(1, 3)
        return x.mul_(weight).add_(B)

    fixed_point(f, x0, adjoint=adjoint).value.sum().backward()
    # x = b / (1 - w), so that dx/dw = b / (1 - w)²
    assert float(weight.grad) == pytest.approx(24.0, rel=1e-5)
    assert torch.count_nonzero(x0) == 0


def test_iterates_that_are_recorded_stay_as_they_were() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return 0.5 * x + B

    with torch.no_grad():
        fixed_point(f, torch.zeros(1, 3))
    x = torch.zeros(1, 3)
    for recorded in seen[:6]:
        assert torch.allclose(recorded, x)
        x = 0.5 * x + B


def test_the_solution_is_not_a_tensor_of_the_map() -> None:
    constant = B.clone()
    for adjoint in (Implicit(), Phantom(), Unrolled(2)):
        value = fixed_point(lambda x: constant, torch.zeros(1, 3), adjoint=adjoint).value
        value.zero_()
        assert torch.equal(constant, B)


WRONG_STARTS = {
    "int64": torch.zeros(1, 2, dtype=torch.int64),
    "uint8": torch.zeros(1, 2, dtype=torch.uint8),
    "bool": torch.zeros(1, 2, dtype=torch.bool),
    "complex64": torch.zeros(1, 2, dtype=torch.complex64),
    "complex128": torch.zeros(1, 2, dtype=torch.complex128),
    "float8_e4m3fn": torch.zeros(1, 2).to(torch.float8_e4m3fn),
    "sparse": torch.zeros(1, 2).to_sparse(),
    "list": [[0.0, 0.0]],
}


@every_solver
@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(), Unrolled(3)], ids=repr)
@pytest.mark.parametrize("kind", WRONG_STARTS)
def test_starts_of_another_kind_are_refused(make: Callable, kind: str, adjoint: object) -> None:
    with pytest.raises(ValueError, match=f"x0.*{kind}") as refused:
        fixed_point(lambda x: 0.5 * x + 1, WRONG_STARTS[kind], make(), adjoint)
    assert "\n" not in str(refused.value)


WRONG_RESULTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "summed up": (lambda x: x.sum(1), "shape"),
    "summed up and kept": (lambda x: x.sum(1, keepdim=True), "shape"),
    "transposed": (lambda x: x.T, "shape"),
    "flattened": (lambda x: x.flatten(), "shape"),
    "one number": (lambda x: x.sum(), "shape"),
    "more samples": (lambda x: torch.cat((x, x)), "shape"),
    "complex": (lambda x: 0.5 * x + 1j, "complex64"),
    "integer": (lambda x: x.long(), "int64"),
    "a tuple": (lambda x: (x, x), "tuple"),
    "nothing": (lambda x: None, "NoneType"),
    "another device": (lambda x: x.to("meta"), "meta"),
}


@every_solver
@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(), Unrolled(3)], ids=repr)
@pytest.mark.parametrize("kind", WRONG_RESULTS)
def test_results_of_another_kind_are_refused(make: Callable, kind: str, adjoint: object) -> None:
    f, word = WRONG_RESULTS[kind]
    for x0 in (torch.zeros(4, 2), torch.zeros(4, 2, requires_grad=True)):
        with pytest.raises(ValueError, match=word) as refused:
            fixed_point(f, x0, make(), adjoint)
        assert "\n" not in str(refused.value)


@every_solver
def test_a_map_in_half_precision_gives_what_it_was_given(make: Callable) -> None:
    """With gradients and without."""
    x0 = torch.zeros(2, 3, dtype=torch.bfloat16)
    for gradients in (torch.no_grad, torch.enable_grad):
        with gradients():
            value = fixed_point(lambda x: (0.25 * x + 1).bfloat16(), x0, make(tol=0.01)).value
        assert value.dtype == torch.bfloat16


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(), Unrolled(3)], ids=repr)
def test_shapes_without_numbers(adjoint: object) -> None:
    """On the meta device, and in the mode that estimates memory without computing."""
    weight = torch.ones(3, 3, device="meta", requires_grad=True)
    solution = fixed_point(
        lambda x: torch.tanh(x @ weight), torch.zeros(2, 3, device="meta"), adjoint=adjoint
    )
    assert solution.value.shape == (2, 3)
    solution.value.sum().backward()
    assert weight.grad.is_meta
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        value = fixed_point(lambda x: 0.5 * x, torch.zeros(2, 3), adjoint=adjoint).value
        assert value.shape == (2, 3)
