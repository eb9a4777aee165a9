"""The penalty options that solvers share, and the objective they define."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from idl_core.sim.solvers.problem.report import Rows

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Penalty:
    """λ(ρ‖w‖₁ + ½(1 - ρ)‖w‖²) with ρ = l1_ratio for an elastic net, λ‖w‖₁ otherwise."""

    l1: float
    l2: float

    @classmethod
    def of(cls, strength: float, l1_ratio: float, elastic_net: bool) -> Penalty:
        """From the options' values."""
        if not elastic_net:
            return cls(strength, 0.0)
        return cls(strength * l1_ratio, strength * (1 - l1_ratio))


def check_penalty_options(lambda_y: float, lambda_z: float, l1_ratio: float) -> None:
    """Raise ValueError, naming the option, where one is out of range."""
    for name, value in (("lambda_y", lambda_y), ("lambda_z", lambda_z)):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, not {value!r}")
    if not 0 <= l1_ratio <= 1:
        raise ValueError(f"l1_ratio must be in [0, 1], not {l1_ratio!r}")


def objectives(
    left: Array, right: Array, X: Array, U: Array, target: Array, penalty: Penalty
) -> Rows:
    """(k,) objective of each row of [left right], from the data in float64."""
    part: Any = np.asarray(target, np.float64) - left @ X.astype(np.float64)
    part = part - right @ U.astype(np.float64)
    size = np.abs(left).sum(1) + np.abs(right).sum(1)
    square = (left**2).sum(1) + (right**2).sum(1)
    result: Rows = 0.5 * (part**2).sum(1) + penalty.l1 * size + 0.5 * penalty.l2 * square
    return result
