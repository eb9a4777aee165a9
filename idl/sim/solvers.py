"""SIM's solvers under the import name users know. Re-exports only."""

from idl_core.sim.solvers import (
    ADMMMultiGPUSolver,
    ADMMSolver,
    BaseSolver,
    BlockReport,
    CVXSolver,
    InfeasibleMatch,
    LeastSquareSolver,
    ProjectedGDLowRankSolver,
    SolveProgress,
    SolveReport,
)

__all__ = [
    "ADMMMultiGPUSolver",
    "ADMMSolver",
    "BaseSolver",
    "BlockReport",
    "CVXSolver",
    "InfeasibleMatch",
    "LeastSquareSolver",
    "ProjectedGDLowRankSolver",
    "SolveProgress",
    "SolveReport",
]
