"""Models that are shared, copied and stored: a call owns its solution, and nobody else's."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from idl_core import ImplicitFunction, ImplicitFunctionInf, ImplicitModel, ImplicitRNN

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "dense": lambda **options: ImplicitModel(4, 2, 12, **options),
    "gelu": lambda **options: ImplicitModel(4, 2, 12, activation="gelu", **options),
    "low rank": lambda **options: ImplicitModel(4, 2, 12, is_low_rank=True, rank=3, **options),
    "recurrent": lambda **options: ImplicitRNN(4, 2, 12, 3, **options),
}
pytestmark = pytest.mark.filterwarnings("ignore:tol=.*finer")  # of large inputs, in float32
every_family = pytest.mark.parametrize("family", FAMILIES)


def batch(family: str, m: int, size: float = 1.0) -> Tensor:
    shape = (m, 5, 4) if family == "recurrent" else (m, 4)
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(m))


def interrupted(cls: type[ImplicitFunction], during: list) -> type[ImplicitFunction]:
    """cls whose constraint, in the middle of a call, lets another call of the model run."""

    class Interrupted(cls):  # type: ignore[misc,valid-type]
        def constrain(self, A: Tensor) -> Tensor:
            if during:
                other = during.pop()
                thread = threading.Thread(target=other)
                thread.start()
                thread.join()
            return super().constrain(A)

    return Interrupted


@pytest.mark.parametrize("family", ["dense", "gelu", "recurrent"])
@pytest.mark.parametrize("way", ["forward", "equilibrium"])
def test_a_call_within_a_call_changes_neither(family: str, way: str) -> None:
    """What another thread does between a call's beginning and its solve: nothing of it is seen."""
    if family == "recurrent" and way == "equilibrium":
        pytest.skip("a sequence has none")
    during: list[Callable[[], None]] = []
    torch.manual_seed(0)
    model = FAMILIES[family](f=interrupted(ImplicitFunctionInf, during))
    mine, others = batch(family, 6), batch(family, 3, 50.0)
    call = model if way == "forward" else model.equilibrium
    expected, expected_of_other = call(mine), call(others)
    expected_grads = torch.autograd.grad(
        expected.square().sum(), list(model.parameters()), allow_unused=True
    )
    found: list[Tensor] = []

    def other() -> None:
        Y = call(others)
        found.append(Y)
        Y.square().sum().backward()

    during.append(other)
    Y = call(mine)
    model.zero_grad()
    grads = torch.autograd.grad(Y.square().sum(), list(model.parameters()), allow_unused=True)
    assert torch.equal(Y, expected)
    assert torch.equal(found[0], expected_of_other)
    for one, truth in zip(grads, expected_grads, strict=True):
        assert (one is None) == (truth is None)
        assert one is None or torch.equal(one, truth)
    # The call that began last wrote last.
    assert model.last_solution.forward.iterations.shape == (3,)


@every_family
def test_many_threads(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family](kernel="torch")
    inputs = [batch(family, m, 1.0 + m) for m in range(1, 9)]
    parameters = list(model.parameters())

    def solve(U: Tensor) -> list[Tensor]:
        Y = model(U)
        return [Y.detach(), *torch.autograd.grad(Y.square().sum(), parameters)]

    truth = [solve(U) for U in inputs]
    wrong: list[int] = []

    def serve(number: int) -> None:
        for turn in range(12):
            i = (number + turn) % len(inputs)
            pairs = zip(solve(inputs[i]), truth[i], strict=True)
            if not all(torch.equal(one, other) for one, other in pairs):
                wrong.append(i)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@every_family
@pytest.mark.parametrize("copied", ["pickle", "deepcopy", "torch.save"])
def test_the_last_batch_is_not_stored(family: str, copied: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]()
    fresh = len(pickle.dumps(model))
    model(batch(family, 2000)).sum().backward()
    model.zero_grad(set_to_none=True)
    if copied == "pickle":
        stored = pickle.dumps(model)
        assert len(stored) <= fresh + 1000
        twin = pickle.loads(stored)
    elif copied == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        assert file.tell() < 30_000
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert twin.last_solution.forward is None
    assert model.last_solution.forward is not None
    U = batch(family, 3)
    assert torch.equal(twin(U), model(U))
    assert twin.last_solution.forward is not None


def test_a_model_of_an_earlier_version_is_read() -> None:
    """Whose pickle has none of the newer attributes."""
    model = ImplicitModel(4, 2, 6)
    state = model.__getstate__()
    for newer in ("_named", "_drawn", "rank"):
        del state[newer]
    old = ImplicitModel.__new__(ImplicitModel)
    old.__setstate__(state)
    U = torch.randn(3, 4)
    assert torch.equal(old(U), model(U))
    with pytest.raises(ValueError, match="takes 4"):
        old(torch.randn(3, 2))
