"""The one entry to every equilibrium that is not affine: a map, a solver, an adjoint."""

from __future__ import annotations

from torch import Tensor

from idl_core.equilibrium.adjoints import Adjoint, Implicit, Map
from idl_core.equilibrium.solution import Solution
from idl_core.equilibrium.solvers import Picard, Solver


def fixed_point(
    f: Map,
    x0: Tensor,
    solver: Solver = Picard(),  # noqa: B008 - frozen
    adjoint: Adjoint = Implicit(),  # noqa: B008 - frozen
) -> Solution:
    """Solve x = f(x) from x0 and make the solution differentiable in all that f depends on.

    Args:
        f: map from a tensor to one of the same shape. The first dimension counts samples, each
            solved on its own; a vector or scalar is one sample. f may close over parameters. It is
            given what x0 is in; iterates are kept in float32 at least. What f rounds to a half
            precision cannot come closer than that resolves.
        x0: initial guess; no gradient flows into it, except under `Unrolled`.
        solver: `Picard()`, `Anderson(window)`, `Broyden(memory)` or an object with their interface.
        adjoint: `Implicit()` (exact), `Phantom(steps)` (approximate), `Unrolled(steps)`.

    Returns:
        The `Solution`; its value carries the gradient.

    Warns:
        ImplicitFunctionWarning: once a call where samples did not converge, forward or adjoint.
    """
    return adjoint.differentiable(f, x0, solver)
