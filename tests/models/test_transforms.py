"""What a model cannot be part of is refused in one line that says what it can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from idl import (
    IDLHead,
    ImplicitFunctionTriu,
    ImplicitModel,
    ImplicitRNN,
    Phantom,
    Unrolled,
    fixed_point,
)

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda: ImplicitModel(4, 2, 6), (3, 4)),
    "tanh": (lambda: ImplicitModel(4, 2, 6, activation="tanh"), (3, 4)),
    "ball": (lambda: ImplicitModel(4, 2, 6, projection="ball"), (3, 4)),
    "low rank": (lambda: ImplicitModel(4, 2, 6, is_low_rank=True, rank=2), (3, 4)),
    "triangular": (lambda: ImplicitModel(4, 2, 6, f=ImplicitFunctionTriu), (3, 4)),
    "recurrent": (lambda: ImplicitRNN(4, 2, 6, 3), (3, 5, 4)),
    "head": (lambda: IDLHead(4, 4, 5, None), (3, 5, 4)),
    "head, lipschitz": (lambda: IDLHead(4, 4, 5, None, "lipschitz"), (3, 5, 4)),
}


def calls(model: nn.Module, u: Tensor) -> dict[str, Callable[[], Any]]:
    """Everything that is not supported, on the inputs and on the parameters."""
    parameters = dict(model.named_parameters())
    of_inputs = lambda x: model(x).sum()  # noqa: E731
    of_weights = lambda p: functional_call(model, p, (u,)).sum()  # noqa: E731

    def dual(x: Tensor) -> Any:
        with forward_ad.dual_level():
            return model(forward_ad.make_dual(x, torch.ones_like(x)))

    def dual_weights() -> Any:
        with forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(value.detach(), torch.ones_like(value))
                for name, value in parameters.items()
            }
            return functional_call(model, duals, (u,))

    def batched_gradients() -> Any:
        Y = model(u.clone().requires_grad_()).flatten()
        basis = torch.eye(len(Y))
        return torch.autograd.grad(Y, list(model.parameters()), basis, is_grads_batched=True)

    return {
        "grad": lambda: grad(of_inputs)(u),
        "grad of weights": lambda: grad(of_weights)(parameters),
        "vjp": lambda: vjp(model, u),
        "jvp": lambda: jvp(model, (u,), (u,)),
        "jacrev": lambda: jacrev(model)(u),
        "jacfwd": lambda: jacfwd(model)(u),
        "hessian": lambda: hessian(of_inputs)(u),
        "vmap": lambda: vmap(model)(torch.stack((u, u))),
        "vmap of gradients": lambda: vmap(lambda x: grad(of_inputs)(x[None]))(u),
        "forward_ad": lambda: dual(u),
        "forward_ad of weights": dual_weights,
        "batched gradients": batched_gradients,
        "jacobian": lambda: torch.autograd.functional.jacobian(model, u, vectorize=True),
        "trace": lambda: torch.jit.trace(model, (u,)),
        "export": lambda: torch.export.export(model, (u,), strict=False),
    }


NAMES = list(calls(nn.Identity(), torch.ones(1)))
INSTEAD = "backward|reverse mode|one by one|state_dict"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*performance drop")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_one_line_says_so(kind: str, name: str) -> None:
    make, shape = MODELS[kind]
    torch.manual_seed(0)
    model, u = make(), torch.randn(shape)
    with pytest.raises(NotImplementedError, match=INSTEAD) as refused:
        calls(model, u)[name]()
    assert "\n" not in str(refused.value).strip()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*jit:FutureWarning")
def test_scripting() -> None:
    for model in (ImplicitModel(4, 2, 6), ImplicitRNN(4, 2, 6, 3)):
        with pytest.raises(NotImplementedError, match="state_dict"):
            torch.jit.script(model)


@pytest.mark.parametrize("kind", MODELS)
def test_what_the_lines_promise(kind: str) -> None:
    """functional_call with other weights, and gradients one by one."""
    make, shape = MODELS[kind]
    torch.manual_seed(0)
    model, other, u = make(), make(), torch.randn(shape)
    Y = functional_call(model, dict(other.named_parameters()), (u,))
    assert torch.allclose(Y, other(u), atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(model, u)
    assert jacobian.shape == (*Y.shape, *u.shape)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("grad of weights", "hessian")])
def test_unrolled_works_within_all_of_them(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(0.1 * torch.ones(4, 4))

        def forward(self, u: Tensor) -> Tensor:
            start = torch.zeros_like(u)
            f = lambda x: torch.tanh(x @ self.W + u)  # noqa: E731
            return fixed_point(f, start, adjoint=Unrolled(40)).value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calls(Model(), torch.randn(3, 4))[name]()


def test_derivatives_of_unrolled_are_exact() -> None:
    torch.manual_seed(0)
    W, u = 0.3 * torch.randn(4, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def loss(u: Tensor, adjoint: Any) -> Tensor:
        f = lambda x: torch.tanh(x @ W + u)  # noqa: E731
        return fixed_point(f, torch.zeros_like(u), adjoint=adjoint).value.pow(3).sum()

    by_func = grad(lambda u: loss(u, Unrolled(60)))(u)
    leaf = u.clone().requires_grad_()
    (usual,) = torch.autograd.grad(loss(leaf, Unrolled(60)), leaf)
    assert torch.allclose(by_func, usual, atol=1e-12)
    _, along = jvp(lambda u: loss(u, Unrolled(60)), (u,), (u,))
    assert float(along) == pytest.approx(float((usual * u).sum()))
    assert torch.allclose(grad(lambda u: loss(u, Phantom(60)))(u), usual, atol=1e-6)
    _, along = jvp(lambda u: loss(u, Phantom(60)), (u,), (u,))
    assert float(along) == pytest.approx(float((usual * u).sum()), rel=1e-5)
