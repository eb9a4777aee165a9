"""Compiled code is given the memory of plain tensors alone; what has none is solved by torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from idl_core import ImplicitModel, ImplicitRNN
from idl_core.kernels.backend import rows_within
from idl_core.kernels.numba.memory import addressable


class Subclass(Tensor):
    pass


def test_what_is_addressable() -> None:
    x = torch.ones(3, 4)
    for one in (x, x[:, ::2], x.T, x[:0], nn.Parameter(x), x.expand(5, 3, 4)):
        assert addressable(one)
    complex_numbers = torch.ones(3, dtype=torch.complex64)
    freed = torch.ones(3, 4)
    freed.untyped_storage().resize_(0)  # as FSDP leaves what it has given away
    others = (
        x.to("meta"),
        x.to_sparse(),
        x.as_subclass(Subclass),
        complex_numbers.conj(),
        complex_numbers.conj().imag,  # negated when it is read
        freed,
        torch._to_functional_tensor(x),
        FakeTensorMode().from_tensor(x),
    )
    for one in others:
        assert not addressable(one), one

    def within(z: Tensor) -> Tensor:
        assert not addressable(z)
        return z.sum()

    torch.func.grad(within)(x)


MODELS = {
    "dense": lambda: ImplicitModel(4, 2, 6),
    "smooth": lambda: ImplicitModel(4, 2, 6, activation="tanh"),
    "low rank": lambda: ImplicitModel(4, 2, 6, low_rank=True, rank=2),
    "sequence": lambda: ImplicitRNN(4, 2, 6, 3),
}


def batch(kind: str) -> Tensor:
    return torch.rand(3, 5, 4) if kind == "sequence" else torch.rand(3, 4)


@pytest.mark.parametrize("kind", MODELS)
def test_a_mode_that_watches_operations(kind: str) -> None:
    """Whose numbers would be wrong if a compiled solve went by it."""
    from torch.distributed._tools.mem_tracker import MemTracker

    model, U = MODELS[kind](), batch(kind)
    expected = model(U)
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        found = model(U)
        found.sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert all(p.grad is not None for p in model.parameters())


def test_fake_tensors_do_not_reach_compiled_code() -> None:
    with FakeTensorMode():
        assert not rows_within(torch.ones(3, 3), 5.0)
        model = MODELS["dense"]()
        assert not rows_within(model.A, 5.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert not rows_within(torch.nn.Parameter(torch.zeros(3, 3)), 5.0)


@pytest.mark.parametrize("kind", MODELS)
def test_fully_sharded_data_parallel(kind: str, tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    store = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        model, U = MODELS[kind](), batch(kind)
        expected = model(U)
        expected.sum().backward()
        of_parameters = [p.grad for p in model.parameters()]
        model.zero_grad()
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        found = model(U)
        found.sum().backward()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        for p, other in zip(model.parameters(), of_parameters, strict=True):
            torch.testing.assert_close(p.grad.full_tensor(), other, atol=1e-4, rtol=1e-4)
        layer = model.recurrent.layer if kind == "sequence" else model
        layer.effective_A()  # of parameters that are DTensors here
    finally:
        dist.destroy_process_group()
