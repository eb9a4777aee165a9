"""Fixed points of any map: the solvers, the adjoints that differentiate them, the solution."""

from idl_core.equilibrium.adjoints import Adjoint, Implicit, Phantom, Unrolled
from idl_core.equilibrium.device_solution import say_late_warnings
from idl_core.equilibrium.fixed_point import fixed_point
from idl_core.equilibrium.solution import ImplicitFunctionWarning, Solution
from idl_core.equilibrium.solvers import Anderson, Broyden, Picard, Solver

__all__ = [
    "Adjoint",
    "Anderson",
    "Broyden",
    "Implicit",
    "ImplicitFunctionWarning",
    "Phantom",
    "Picard",
    "Solution",
    "Solver",
    "Unrolled",
    "fixed_point",
    "say_late_warnings",
]
