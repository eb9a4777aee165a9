"""The configuration of `idl sim`: the state-driven model, its teacher, its solver.

To add a solver: a class here and in `SolverConfig`, its entry in build_sim.py, a file in
conf/solver/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from idl_cli.config.bounds import Count, Fraction, Natural, NonNegative, Positive, Range
from idl_cli.config.data_options import SampleDataConfig
from idl_cli.config.model_options import CNNConfig, MLPConfig
from idl_cli.config.training_options import (
    LoggerConfig,
    NoLoggerConfig,
    OptimizerConfig,
    SchedulerConfig,
    SweepConfig,
    TrainerConfig,
    check_run_name,
)
from idl_cli.config.typed_settings import read_settings

Share = Annotated[float, Range(0, 1)]
Step = Annotated[float, Range(0, 2, open_low=True, open_high=True)]


@dataclass(frozen=True)
class SIMConfig:
    """See `idl_core.sim.SIM`."""

    name: Literal["sim"] = "sim"
    kappa: Fraction = 0.99
    atol: Positive = 1e-6
    skip_layers: Natural | None = None
    standardize: bool = False
    rescale: bool = True
    samples: Count | None = None


@dataclass(frozen=True)
class RunConfig:
    """An earlier run as the teacher."""

    run: str
    name: Literal["run"] = "run"


@dataclass(frozen=True)
class ADMMOptions:
    """The options of ADMM, in one process or in several."""

    name: str = ""
    lambda_z: NonNegative = 1e-6
    lambda_y: NonNegative = 1e-6
    elastic_net: bool = False
    l1_ratio: Share = 0.5
    well_pose: bool = True
    regen_states: bool = False
    gap_tol: Positive = 1e-5
    max_iter: Count = 2000
    relaxation: Step = 1.6
    polish_rounds: Natural = 16
    batch_feature_size: Count | None = None
    tol: NonNegative = 0.0


@dataclass(frozen=True)
class ADMMConfig(ADMMOptions):
    """See `idl_core.sim.solvers.ADMMSolver`."""

    name: Literal["admm"] = "admm"


@dataclass(frozen=True)
class ADMMMultiGPUConfig(ADMMOptions):
    """See `idl_core.sim.solvers.ADMMMultiGPUSolver`."""

    name: Literal["admm_multigpu"] = "admm_multigpu"
    batch_feature_size: Count = 64
    devices: Count | None = None
    threads: Count = 1
    timeout: Positive = 1800.0


@dataclass(frozen=True)
class CVXConfig:
    """See `idl_core.sim.solvers.CVXSolver`."""

    name: Literal["cvx"] = "cvx"
    lambda_z: NonNegative = 1e-6
    lambda_y: NonNegative = 1e-6
    elastic_net: bool = False
    l1_ratio: Share = 0.5
    regularized: bool = True
    well_pose: bool = True
    regen_states: bool = False
    num_row: Count = 1
    batch_size: Count = 32
    num_processes: Count = 32
    tol: NonNegative = 1e-6
    accuracy: Positive | None = None


@dataclass(frozen=True)
class LowRankConfig:
    """See `idl_core.sim.solvers.ProjectedGDLowRankSolver`."""

    name: Literal["projected_gd_low_rank"] = "projected_gd_low_rank"
    rank: Count | None = None
    num_epoch: Count = 10000
    lambda_z: NonNegative = 1e-6
    lr: Step = 1.0
    verbose_epoch: Count = 100
    regen_states: bool = False
    tol: NonNegative = 1e-6


@dataclass(frozen=True)
class LeastSquareConfig:
    """See `idl_core.sim.solvers.LeastSquareSolver`."""

    name: Literal["least_square"] = "least_square"
    regen_states: bool = False
    tol: NonNegative = 1e-6


TeacherConfig = MLPConfig | CNNConfig | RunConfig
SolverConfig = ADMMConfig | ADMMMultiGPUConfig | CVXConfig | LowRankConfig | LeastSquareConfig


@dataclass(frozen=True)
class SimConfig:
    """The configuration of `idl sim`; optimizer, scheduler and trainer are its teacher's."""

    name: str
    model: SIMConfig
    teacher: TeacherConfig
    solver: SolverConfig
    data: SampleDataConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    logger: LoggerConfig = field(default_factory=NoLoggerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    debug: bool = False

    def __post_init__(self) -> None:
        check_run_name(self.name)


def sim_config(values: object) -> SimConfig:
    """The typed configuration out of plain values. Raises: InputError."""
    return read_settings(SimConfig, values)
