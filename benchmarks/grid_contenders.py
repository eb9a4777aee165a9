"""The models that `auto_grid.py` times: the project's, a plain Picard loop, torchidl, torchdeq.

All of one case have the same weights, take U (m, p) and return Ŷ (m, q) that is differentiable in
A, B, C, D and U.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idl_core import ImplicitModel

TOL = 3e-6  # of all: on max|φ(AX + BU) - X|, and on the same of the adjoint per max|Cᵀ grad|
MOST = 300  # iterations: torchidl's and the project's default

PHI: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu}


def slope_of(phi: str, pre: Tensor) -> Tensor:
    """φ' at the pre-activation."""
    if phi == "relu":
        return (pre > 0).to(pre.dtype)
    if phi == "tanh":
        return 1 - torch.tanh(pre) ** 2
    cdf = 0.5 * (1 + torch.erf(pre * 0.5**0.5))
    return cdf + pre * torch.exp(-0.5 * pre * pre) * (0.5 / torch.pi) ** 0.5


class TooSlow(Exception):
    """A loop that is not the fastest any more was stopped."""


class PlainLoop(nn.Module):
    """A loop as one would write it in torch: x <- φ(x Aᵀ + z) in place, until max|change| ≤ tol.

    It takes A as it is, without a look at its norm. `deadline` (of time.perf_counter) stops one
    that is too slow to count.
    """

    def __init__(self, weights: dict[str, Tensor], phi: str) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        self.phi, self.deadline = phi, None

    def forward(self, U: Tensor) -> Tensor:
        X = _PlainPicard.apply(self, self.A, F.linear(U, self.B))
        return torch.addmm(F.linear(U, self.D), X, self.C.T)

    def states(self, U: Tensor) -> Tensor:
        return _PlainPicard.apply(self, self.A, F.linear(U, self.B)).detach()

    def iterate(self, step: Callable[[Tensor, Tensor], Tensor], x: Tensor, tol: float) -> Tensor:
        """Apply `step(x, out)` from x until nothing changes by more than tol."""
        spare = torch.empty_like(x)
        for _ in range(MOST):
            new = step(x, spare)
            change = float((new - x).abs().max())
            x, spare = new, x
            if change <= tol:
                break
            if self.deadline is not None and time.perf_counter() > self.deadline:
                raise TooSlow
        return x


class _PlainPicard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: PlainLoop, A: Tensor, Z: Tensor) -> Tensor:
        phi = PHI[loop.phi]

        def step(x: Tensor, out: Tensor) -> Tensor:
            torch.addmm(Z, x, A.T, out=out)
            if loop.phi == "relu":
                return out.relu_()
            return out.tanh_() if loop.phi == "tanh" else phi(out)

        X = loop.iterate(step, phi(Z), TOL)
        ctx.loop = loop
        ctx.save_for_backward(A, Z, X)
        return X

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        A, Z, X = ctx.saved_tensors
        if ctx.loop.phi == "relu":
            slope = (X > 0).to(X.dtype)
        elif ctx.loop.phi == "tanh":
            slope = 1 - X * X
        else:
            slope = slope_of("gelu", torch.addmm(Z, X, A.T))
        grad = grad.contiguous()

        def step(v: Tensor, out: Tensor) -> Tensor:
            return torch.addmm(grad, v, A, out=out).mul_(slope)

        V = ctx.loop.iterate(step, slope * grad, TOL * float(grad.abs().max()))
        return None, V.T @ X, V


class TorchDEQ(nn.Module):
    """The same by torchdeq, with one of its solvers and 2-norm tolerances."""

    def __init__(self, weights: dict[str, Tensor], phi: str, solver: str, tol: float) -> None:
        import torchdeq

        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        self.phi = PHI[phi]
        self.deq = torchdeq.get_deq(
            ift=True,
            f_solver=solver,
            f_max_iter=MOST,
            f_tol=tol,
            b_solver=solver,
            b_max_iter=MOST,
            b_tol=tol,
        )

    def forward(self, U: Tensor) -> Tensor:
        X = self._solve(F.linear(U, self.B))
        return F.linear(X, self.C) + F.linear(U, self.D)

    def states(self, U: Tensor) -> Tensor:
        return self._solve(F.linear(U, self.B)).detach()

    def _solve(self, Z: Tensor) -> Tensor:
        out, _ = self.deq(lambda X: self.phi(torch.addmm(Z, X, self.A.T)), torch.zeros_like(Z))
        return out[-1]


def project_model(weights: dict[str, Tensor], phi: str, kernel: str) -> ImplicitModel:
    """The project's model, with the defaults of a user."""
    (n, p), q = weights["B"].shape, len(weights["C"])
    model = ImplicitModel(p, q, n, activation=phi, kernel=kernel)
    model.load_state_dict(weights)
    model.states = lambda U: model.equilibrium(U).detach()
    return model


def torchidl_model(weights: dict[str, Tensor], phi: str) -> Any:
    """The peer's model at its own defaults (300 iterations, 3e-6), which are ours too."""
    import torchidl
    from torchidl.implicit_function import ImplicitFunctionInf, ImplicitFunctionWarning

    warnings.filterwarnings("ignore", category=ImplicitFunctionWarning)
    own = ImplicitFunctionInf
    if phi != "relu":
        members = {
            "phi": staticmethod(PHI[phi]),
            "dphi": staticmethod(lambda pre: slope_of(phi, pre)),
        }
        own = type(phi, (ImplicitFunctionInf,), members)
    (n, p), q = weights["B"].shape, len(weights["C"])
    model = torchidl.ImplicitModel(p, q, n, f=own)
    model.load_state_dict(weights)

    def states(U: Tensor) -> Tensor:
        X0 = torch.zeros(n, len(U))
        return model.f.apply(model.A, model.B, X0, U.T).detach().T

    model.states = states
    return model


def torchdeq_candidates(weights: dict[str, Tensor], phi: str) -> Iterator[list[nn.Module]]:
    """Of each solver the models from the loosest tolerance to the tightest.

    torchdeq bounds 2-norms, which are larger than the largest entry that the others bound.
    """
    warnings.filterwarnings("ignore", module="torchdeq")
    for solver in ("fixed_point_iter", "anderson"):
        yield [TorchDEQ(weights, phi, solver, slack * TOL) for slack in (8.0, 4.0, 2.0, 1.0)]
