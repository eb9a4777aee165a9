"""From the options of `idl sim` to its solver and its model: the registry of solvers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from idl_cli.config.sim_config import SIMConfig, SolverConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.errors import InputError
from idl_core.sim import SIM
from idl_core.sim.solvers import (
    ADMMMultiGPUSolver,
    ADMMSolver,
    BaseSolver,
    CVXSolver,
    LeastSquareSolver,
    ProjectedGDLowRankSolver,
)

SOLVERS: dict[str, Callable[..., BaseSolver]] = {
    "admm": ADMMSolver,
    "admm_multigpu": ADMMMultiGPUSolver,
    "cvx": CVXSolver,
    "least_square": LeastSquareSolver,
    "projected_gd_low_rank": ProjectedGDLowRankSolver,
}


def build_solver(config: SolverConfig) -> BaseSolver:
    """The solver. Raises: InputError where it refuses its options."""
    options = as_plain(config)
    make = SOLVERS[options.pop("name")]
    try:
        return make(**options)
    except ValueError as error:
        raise InputError(f"solver={config.name}: {error}") from error


def build_sim(
    settings: SIMConfig, activation: str, device: torch.device, dtype: torch.dtype
) -> SIM:
    """The model, with nothing learned yet."""
    return SIM(
        activation,
        settings.kappa,
        settings.atol,
        settings.skip_layers,
        settings.standardize,
        device,
        dtype,
    )
