"""The same equilibrium written for torchdeq, and the fastest of its solvers that reaches it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torchdeq
from cases import Case
from exact import TOL, attainable, forward_residual, reference_states
from timing import paired_medians, repeats_for
from torch import Tensor, nn
from torch.nn import functional as F

# Each with the iterations it may take. Broyden keeps two vectors an iteration for every sample.
SOLVERS = {"fixed_point_iter": (40, 300, 2000), "anderson": (40, 300), "broyden": (40, 120)}
# torchdeq bounds the 2-norm of a residual and the table its largest entry, which is smaller: the
# 2-norm is allowed as much more as leaves the largest entry within the tolerance.
SLACK = (8.0, 4.0, 2.0, 1.0)

Setting = tuple[str, int, float]  # solver, max_iter, tol


@dataclass(frozen=True)
class Choice:
    """Settings of `get_deq`."""

    f_solver: str
    f_max_iter: int
    f_tol: float
    b_solver: str
    b_max_iter: int
    b_tol: float


class DEQModel(nn.Module):
    """Ŷ = C X + D U with X by torchdeq, given an A that is within the ball already."""

    def __init__(self, case: Case, choice: Choice) -> None:
        super().__init__()
        for name, value in case.weights.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        self.choice = choice
        self.deq = torchdeq.get_deq(ift=True, **vars(choice))
        self.steps = (0, 0)  # iterations of the last forward and backward solve
        self.stopped = (False, False)  # whether they ended by their own tests

    def forward(self, U: Tensor) -> Tensor:
        Z = F.linear(U, self.B)  # once a solve, not once an iteration
        X = self.solve(Z)
        return F.linear(X, self.C) + F.linear(U, self.D)

    def solve(self, Z: Tensor, start: Tensor | None = None) -> Tensor:
        """The states X (m, n), differentiable."""

        def step(X: Tensor) -> Tensor:
            return F.relu(torch.addmm(Z, X, self.A.T))

        def after_backward(info: dict[str, Tensor]) -> None:
            self.steps = (self.steps[0], int(info["nstep"].max()))
            met = bool(info["abs_lowest"].max() < self.choice.b_tol)
            self.stopped = (self.stopped[0], met)

        start = torch.zeros_like(Z) if start is None else start
        out, info = self.deq(step, start, backward_writer=after_backward)
        self.steps = (int(info["nstep"].max()), self.steps[1])
        self.stopped = (bool(info["abs_lowest"].max() < self.choice.f_tol), self.stopped[1])
        return out[-1]


def fastest(case: Case) -> tuple[DEQModel, Choice] | None:
    """The model with the fastest pair of forward and backward solver that meets the tolerances.

    Forward: the largest residual is at most 3e-6, or the rounding error of X where that is more.
    Backward: at most 3e-6 of the largest incoming gradient, as for our adjoint.
    """
    warnings.filterwarnings("ignore", module="torchdeq")
    forwards = [choice for name in SOLVERS if (choice := _loosest_forward(case, name))]
    if not forwards:
        return None
    backwards = [choice for name in SOLVERS if (choice := _loosest_backward(case, name))]
    pairs = [Choice(*f, *b) for f, b in product(forwards, backwards)]
    models = [DEQModel(case, pair) for pair in pairs]
    steps = [lambda model=model: train_step(model, case) for model in models]
    if not steps:
        return None
    repeats = repeats_for(steps[0], seconds=0.5, least=1, most=30)
    times = paired_medians(steps, repeats)
    best = min(range(len(times)), key=times.__getitem__)
    return models[best], pairs[best]


def train_step(model: nn.Module, case: Case) -> None:
    """Forward and backward of one batch, from no gradients."""
    model.zero_grad()
    F.cross_entropy(model(case.inputs), case.targets).backward()


def _loosest_forward(case: Case, solver: str) -> Setting | None:
    """The cheapest setting with which `solver` meets the forward tolerance."""
    Z = case.inputs @ case.weights["B"].T

    def attempt(setting: Setting) -> tuple[bool, bool]:
        model = DEQModel(case, Choice(*setting, "fixed_point_iter", 1, TOL))
        X = model.solve(Z).detach()
        return bool(forward_residual(case, X) <= attainable(X)), model.stopped[0]

    return _cheapest(attempt, solver, TOL)


def _loosest_backward(case: Case, solver: str) -> Setting | None:
    """The cheapest setting with which `solver` meets the backward tolerance."""
    weights, U = case.weights, case.inputs
    Z = U @ weights["B"].T
    X = reference_states(case).float().requires_grad_()
    loss = F.cross_entropy(X @ weights["C"].T + U @ weights["D"].T, case.targets)
    (incoming,) = torch.autograd.grad(loss, X)
    X = X.detach()
    unit = TOL * float(incoming.abs().max())
    active = (X > 0).to(X.dtype)

    def attempt(setting: Setting) -> tuple[bool, bool]:
        model = DEQModel(case, Choice("fixed_point_iter", 2, TOL, *setting))
        at = Z.clone().requires_grad_()
        (V,) = torch.autograd.grad(model.solve(at, start=X), at, incoming)
        residual = active * (incoming + V @ weights["A"]) - V
        return bool(residual.abs().max() <= unit), model.stopped[1]

    return _cheapest(attempt, solver, unit)


def _cheapest(
    attempt: Callable[[Setting], tuple[bool, bool]], solver: str, unit: float
) -> Setting | None:
    """Try fewer iterations before more, and looser tolerances before tighter ones.

    `attempt` tells whether the result is good enough, and whether the solver's own test was met:
    where it was not, a tighter one with as many iterations changes nothing.
    """
    for max_iter in SOLVERS[solver]:
        for slack in SLACK:
            setting = (solver, max_iter, slack * unit)
            good, stopped = attempt(setting)
            if good:
                return setting
            if not stopped:
                break
    return None
