"""The operators within torch: their registration, compilation, autocast, DDP, CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from equilibria import contraction
from torch import Tensor, nn

from idl_core import ImplicitModel, ImplicitRNN


def models(device: str) -> Iterator[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    yield ImplicitModel(5, 3, 10, kernel="triton", activation="tanh"), torch.randn(4, 5)
    yield ImplicitModel(5, 3, 10, kernel="triton", low_rank=True, rank=2), torch.randn(4, 5)
    yield ImplicitRNN(2, 1, 6, 5, kernel="triton"), torch.randn(3, 2, 2)


def gradients(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    model.zero_grad()
    y = model(inputs)
    y.float().square().sum().backward()
    return [y.detach().float(), *(p.grad for p in model.parameters())]


def test_the_operators_are_registered_as_torch_wants_them(device: str) -> None:
    A = contraction(6, 0.5, "random").to(device)
    Z = torch.randn(1, 3, 6, device=device)
    chain = (A, Z[..., :4], Z[..., 4:], Z[0, :, :2], None, 3, 1, 2, "relu", False, 3e-6, 50)
    torch.library.opcheck(torch.ops.idl.solve_chain.default, chain)
    L, R = A[:, :2], A[:, 2:4]
    low_rank = (L, R, Z[0], None, None, "relu", False, 3e-6, 50)
    torch.library.opcheck(torch.ops.idl.solve_low_rank.default, low_rank)


def test_models_compile_into_one_graph(device: str) -> None:
    """The projection too breaks none, whether A is inside the ball or outside."""
    for number, (model, inputs) in enumerate(models(device)):
        model, inputs = model.to(device), inputs.to(device)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for scale in (1.0, 3.0) if number == 0 else (2.0,):
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(scale)
            found = gradients(compiled, inputs)
            assert model.last_solution.forward.all_converged
            assert model.last_solution.forward.iterations.shape == (len(inputs),)
            for one, expected in zip(found, gradients(model, inputs), strict=True):
                assert torch.allclose(one, expected, rtol=1e-4, atol=1e-5)


def test_one_graph_serves_all_batch_sizes(device: str) -> None:
    """Marked as dynamic, which raises where a size is taken for a number."""
    graphs = []

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    for model, inputs in list(models(device))[1:]:  # a dense A is a sequence of one step
        torch._dynamo.reset()
        graphs.clear()
        model = model.to(device)
        model(inputs.to(device))  # what this machine can do has been looked for
        compiled = torch.compile(model, backend=count, dynamic=True, fullgraph=True)
        for m in (4, 7):
            batch = torch.randn(m, *inputs.shape[1:], device=device)
            torch._dynamo.mark_dynamic(batch, 0)
            y = compiled(batch)
        y.square().sum().backward()
        assert torch.allclose(y, model(batch), rtol=1e-4, atol=1e-5)
        assert len(graphs) == 1


def test_autocast(device: str) -> None:
    """Products are in bfloat16, the solve is in float32, gradients have the parameters' type."""
    for model, inputs in models(device):
        model, inputs = model.to(device), inputs.to(device)
        expected = gradients(model, inputs)
        with torch.autocast(device, torch.bfloat16):
            y = model(inputs)
        assert model.last_solution.forward.value.dtype == torch.float32
        assert model.last_solution.forward.all_converged
        model.zero_grad()
        y.float().square().sum().backward()
        for found, other in zip((p.grad for p in model.parameters()), expected[1:], strict=True):
            assert found.dtype == torch.float32
            assert float((found - other).norm() / other.norm()) <= 0.05


def test_distributed_data_parallel(device: str, tmp_path: Path) -> None:
    backend = "nccl" if device == "cuda" else "gloo"
    store = f"file://{tmp_path / 'store'}"
    dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        model, inputs = next(models(device))
        model, inputs = model.to(device), inputs.to(device)
        expected = gradients(copy.deepcopy(model), inputs)
        wrapped = nn.parallel.DistributedDataParallel(model)
        for found, other in zip(gradients(wrapped, inputs), expected, strict=True):
            assert torch.allclose(found, other, atol=1e-6)
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_cuda_graphs(device: str) -> None:
    """A training step is captured and replayed on other data: nothing waits for the host."""
    for model, inputs in models(device):
        model, static = model.to(device), inputs.to(device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                gradients(model, static)
        torch.cuda.current_stream().wait_stream(side)
        model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(static).square().sum().backward()
        other = torch.randn_like(static)
        static.copy_(other)
        graph.replay()
        found = [p.grad.clone() for p in model.parameters()]
        assert model.last_solution.forward.all_converged
        for one, expected in zip(found, gradients(model, other)[1:], strict=True):
            assert torch.allclose(one, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to wait for")
def test_a_training_step_does_not_wait_for_the_gpu(device: str) -> None:
    for model, inputs in models(device):
        model, inputs = model.to(device), inputs.to(device)
        gradients(model, inputs)  # compiles
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(inputs).square().sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
