"""The one entry to every equilibrium that is not affine: a map, a solver, an adjoint."""

from __future__ import annotations

from torch import Tensor

from idl_core.equilibrium.adjoints import Adjoint, Implicit
from idl_core.equilibrium.solution import Solution
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.equilibrium.transforms import has_no_values, is_exporting, without_values
from idl_core.equilibrium.user_map import Map, UserMap


def fixed_point(
    f: Map,
    x0: Tensor,
    solver: Solver = Picard(),  # noqa: B008 - frozen
    adjoint: Adjoint = Implicit(),  # noqa: B008 - frozen
) -> Solution:
    """Solve x = f(x) from x0 and make the solution differentiable in all that f depends on.

    Args:
        f: map from a tensor to one of the same shape. The first dimension counts samples, each
            solved on its own; a vector or scalar is one sample. f may close over parameters, and
            may work in place: it is given copies, of what x0 is in; iterates are kept in float32
            at least. What f rounds to a half precision cannot come closer than that resolves.
        x0: initial guess, real and in floating point; no gradient flows into it, except under
            `Unrolled`. On the meta device f is applied once, for shapes.
        solver: `Picard()`, `Anderson(window)`, `Broyden(memory)` or an object with their interface.
        adjoint: `Implicit()` (exact), `Phantom(steps)` (approximate), `Unrolled(steps)`.

    Returns:
        The `Solution`; its value carries the gradient.

    Raises:
        ValueError: x0, or what f gives, is not such a tensor.
        NotImplementedError: within torch.func, forward mode, torch.jit.trace or torch.export,
            except under `Unrolled`.

    Warns:
        ImplicitFunctionWarning: once a call where samples did not converge, forward or adjoint.
    """
    checked = UserMap(f, x0)
    if has_no_values(x0) and not is_exporting():
        return without_values(checked(x0), solver.tol)
    return adjoint.differentiable(checked, x0, solver)
