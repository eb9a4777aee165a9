"""Solvers of SIM's convex problem: one file each, on one base."""

from idl_core.sim.solvers.admm import ADMMSolver
from idl_core.sim.solvers.admm_multi_gpu import ADMMMultiGPUSolver
from idl_core.sim.solvers.base import BaseSolver
from idl_core.sim.solvers.cvx import CVXSolver, InfeasibleMatch
from idl_core.sim.solvers.least_square import LeastSquareSolver
from idl_core.sim.solvers.problem.report import BlockReport, SolveProgress, SolveReport
from idl_core.sim.solvers.projected_gd_low_rank import ProjectedGDLowRankSolver

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
