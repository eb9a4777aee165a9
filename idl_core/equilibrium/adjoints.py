"""How to differentiate a fixed point: implicitly, by a few steps, or through the iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from idl_core.equilibrium.criterion import Criterion
from idl_core.equilibrium.first_order import first_order_only
from idl_core.equilibrium.solution import LastChange, Solution
from idl_core.equilibrium.solvers import Solver, Step
from idl_core.equilibrium.transforms import (
    functorch_is_active,
    is_exporting,
    refuse_tangents,
    refuse_tracing,
    refuse_transforms,
    refuse_vmap,
)
from idl_core.equilibrium.user_map import Map


class Adjoint(Protocol):
    """Anything that computes a fixed point and makes it differentiable."""

    def differentiable(self, f: Map, x0: Tensor, solver: Solver) -> Solution: ...


@dataclass(frozen=True)
class Implicit:
    """Exact gradient by the implicit function theorem: memory independent of the iterations.

    With J = df/dx at the fixed point and G the incoming gradient, solves V = V J + G, then sends V
    back through one application of f. The tolerance is relative to max|G| of each sample, so that
    scaling a loss scales its gradient.

    Args:
        solver: of the adjoint equation; None takes the forward solver with its settings.
    """

    solver: Solver | None = None

    def differentiable(self, f: Map, x0: Tensor, solver: Solver) -> Solution:
        refuse_transforms(x0)

        def without_tangents(x: Tensor) -> Tensor:
            image = f(x)
            refuse_tangents(image)
            return image

        solution = _solve_without_graph(without_tangents, x0, solver)
        if not torch.is_grad_enabled():
            return solution.with_value(solution.value.to(x0.dtype))
        point = solution.value.detach().requires_grad_()
        image = f(point.to(x0.dtype)).to(point.dtype)
        if not _depends_on_others(image, point):
            return solution.with_value(solution.value.to(x0.dtype))
        value = _ImplicitAdjoint.apply(image, point, self.solver or solver)
        return solution.with_value(value.to(x0.dtype))


class _ImplicitAdjoint(torch.autograd.Function):
    """Identity on the fixed point; backward turns G into the adjoint solution V."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, point: Tensor, solver: Solver) -> Tensor:
        ctx.image, ctx.point, ctx.solver = image, point, solver
        ctx.also_read = (image,)
        return point.detach().clone()

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows = _rows(grad)
        # Each sample in units of its own gradient, a power of two so that nothing is rounded: no
        # scale of a loss overflows or vanishes, nor does one sample decide for another.
        size = rows.abs().amax(1, keepdim=True) if rows.numel() else rows.new_ones(len(rows), 1)
        unit = torch.ldexp(torch.ones_like(size), torch.frexp(size)[1] - 1)
        unit = unit.where((size > 0) & size.isfinite(), 1.0)
        rows = rows / unit

        def step(v: Tensor, out: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(
                ctx.image,
                ctx.point,
                v.reshape(grad.shape),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            return _rows(pulled) + rows

        solution = ctx.solver.solve(step, rows, rows.new_ones(()))
        solution.warn_unless_converged("the adjoint solve")
        return (solution.value * unit).reshape(grad.shape), None, None


@dataclass(frozen=True)
class Phantom:
    """Approximate gradient through `steps` damped applications of f at the fixed point.

    x <- (1 - damping) x + damping f(x). One undamped step is Jacobian-free backpropagation (Fung
    et al., AAAI 2022); more are the phantom gradient (Geng et al., NeurIPS 2021). Not exact.
    """

    steps: int = 1
    damping: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps!r}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must be in (0, 1], not {self.damping!r}")

    def differentiable(self, f: Map, x0: Tensor, solver: Solver) -> Solution:
        refuse_tracing()
        refuse_vmap()
        solution = _solve_without_graph(lambda x: f(x).detach(), x0, solver)
        if not torch.is_grad_enabled():
            return solution.with_value(solution.value.to(x0.dtype))
        x = solution.value.detach()
        for _ in range(self.steps):
            x = torch.lerp(x, f(x.to(x0.dtype)).to(x.dtype), self.damping)
        return solution.with_value(x.to(x0.dtype))


@dataclass(frozen=True)
class Unrolled:
    """Exactly `steps` applications of f from x0, differentiated through: no solver runs.

    The residual and `converged` of the solution are honest; stopping short is what was asked for,
    so it does not warn. Works within torch.func, forward mode and torch.export, where nothing may
    look at a number: `all_converged` is False there.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps!r}")

    def differentiable(self, f: Map, x0: Tensor, solver: Solver) -> Solution:
        x = x0
        for _ in range(self.steps):
            previous, x = x, f(x)
        change, rows = _rows((x - previous).detach().abs()), _rows(x.detach())
        if functorch_is_active() or is_exporting():  # where no number may be looked at
            measured = LastChange(change, rows, solver.tol, self.steps)
            return Solution(x, measured, solver.tol, known_converged=False)
        criterion = Criterion(solver.tol)
        criterion.measure(change, rows)
        return criterion.solution(x, self.steps)


@torch.no_grad()
def _solve_without_graph(f: Map, x0: Tensor, solver: Solver) -> Solution:
    """The solution in one dtype, at least float32, whatever f, or autocast within it, computes in:
    f is given what x0 is in."""
    working = torch.promote_types(x0.dtype, torch.float32)
    step: Step = lambda x, out: out.copy_(_rows(f(x.reshape(x0.shape).to(x0.dtype))))  # noqa: E731
    solution = solver.solve(step, _rows(x0).to(working))
    solution.warn_unless_converged("the fixed-point solve")
    return solution.with_value(solution.value.reshape(x0.shape))


def _depends_on_others(image: Tensor, point: Tensor) -> bool:
    """Whether anything but the point that image = f(point) was computed from requires a gradient.

    Followed through the graph as far as to the first such.
    """
    if torch.compiler.is_compiling():  # which does not look into graphs
        return True
    own = get_gradient_edge(point).node
    waiting = [get_gradient_edge(image).node] if image.requires_grad else []
    seen = set()
    while waiting:
        node = waiting.pop()
        seen.add(node)
        if node is not own and not node.next_functions:
            return True
        waiting.extend(next for next, _ in node.next_functions if next and next not in seen)
    return False


def _rows(x: Tensor) -> Tensor:
    """View as (samples, features): the first dimension counts samples; a vector is one sample."""
    return x.reshape(1, -1) if x.dim() < 2 else x.flatten(1)
