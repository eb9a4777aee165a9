"""Fixed points of any map: the solvers, the adjoints that differentiate them, the solution."""

from idl_core.equilibrium.adjoints import Adjoint, Implicit, Phantom, Unrolled
from idl_core.equilibrium.captured_solves import CapturedSolves
from idl_core.equilibrium.fixed_point import fixed_point
from idl_core.equilibrium.late_warnings import collected, flush_warnings
from idl_core.equilibrium.solution import ImplicitFunctionWarning, Solution, SolveStats
from idl_core.equilibrium.solvers import Anderson, Broyden, Picard, Solver

__all__ = [
    "Adjoint",
    "Anderson",
    "Broyden",
    "CapturedSolves",
    "Implicit",
    "ImplicitFunctionWarning",
    "Phantom",
    "Picard",
    "Solution",
    "SolveStats",
    "Solver",
    "Unrolled",
    "collected",
    "fixed_point",
    "flush_warnings",
]
