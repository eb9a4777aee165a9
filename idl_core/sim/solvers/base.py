"""What every solver of SIM has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from idl_core.sim.solvers.problem.report import OnProgress, SolveReport

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Weights = tuple[Array, Array, Array, Array]


class BaseSolver(ABC):
    """Finds A, B, C, D from states. Subclass it to bring a solver of your own.

    Attributes:
        report: what the last `solve` found, or None; a solver of your own may leave it so.
        on_progress: called with a `SolveProgress` now and then while solving, or None.
    """

    report: SolveReport | None = None
    on_progress: OnProgress | None = None

    @abstractmethod
    def solve(
        self, X: Array, U: Array, Z: Array, Y: Array, model_config: Mapping[str, Any]
    ) -> Weights:
        """Fit the implicit model X = φ(AX + BU), Y = CX + DU to the states of a network.

        Columns are samples.

        Args:
            X: (n, m) post-activations.
            U: (p, m) inputs.
            Z: (n, m) pre-activations.
            Y: (q, m) outputs.
            model_config: `kappa`, the bound on ‖A‖∞; `device`; and where states are generated anew
                `activation_fn`, φ, and `atol`, of their equilibrium.

        Returns:
            A (n, n), B (n, p), C (q, n), D (q, p), as float64 arrays.
        """


@dataclass(frozen=True)
class States:
    """The four matrices of a solve, checked: finite, of one number of samples."""

    X: Array
    U: Array
    Z: Array
    Y: Array

    def __post_init__(self) -> None:
        for name in ("X", "U", "Z", "Y"):
            value = getattr(self, name)
            if value.ndim != 2:
                raise ValueError(f"{name} must be a matrix, columns being samples: {value.shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} contains NaN or infinity")
        counts = {name: getattr(self, name).shape[1] for name in ("X", "U", "Z", "Y")}
        if len(set(counts.values())) > 1:
            raise ValueError(f"X, U, Z, Y must have one column a sample, but have {counts}")
        if not self.X.shape[1]:
            raise ValueError("no samples: X, U, Z, Y have no columns")
        if self.X.shape != self.Z.shape:
            raise ValueError(f"X {self.X.shape} and Z {self.Z.shape} must have one shape")

    @classmethod
    def of(cls, X: Array, U: Array, Z: Array, Y: Array) -> States:
        """From whatever `solve` was given."""
        return cls(*(np.asarray(part) for part in (X, U, Z, Y)))


def kappa_of(model_config: Mapping[str, Any]) -> float:
    """κ of a model's configuration, checked to be at least 0."""
    kappa = float(model_config.get("kappa", 0.99))
    if not kappa >= 0:
        raise ValueError(f"kappa must be at least 0, not {kappa!r}")
    return kappa


def device_of(model_config: Mapping[str, Any]) -> torch.device:
    """The device of a model's configuration; the CPU where none is given."""
    return torch.device(model_config.get("device") or "cpu")


def data_matrix(X: Array, U: Array, device: torch.device, dtype: torch.dtype) -> Tensor:
    """M = [Xᵀ Uᵀ] (m, n + p) in float64, of the numbers as `dtype` holds them."""
    parts = [torch.from_numpy(np.ascontiguousarray(part)).to(device, dtype) for part in (X, U)]
    return torch.cat(parts).T.to(torch.float64).contiguous()


def within_ball(A: Array, kappa: float) -> Array:
    """A with its rows shrunk, by rounding only, to sums of magnitudes of at most kappa."""
    A = np.array(A)
    eps = np.finfo(A.dtype).eps
    for _ in range(8):
        sums = np.abs(A).sum(1)
        # An order of summation other than NumPy's may find a sum larger by a few units.
        over = sums > kappa * (1 - 2 * eps)
        if not over.any():
            break
        A[over] *= (kappa * (1 - 8 * eps) / sums[over])[:, None]
    return A


def drop_small(weights: Array, tol: float) -> Array:
    """The weights with those of magnitude at most tol set to zero."""
    return np.where(np.abs(weights) <= tol, 0.0, weights) if tol > 0 else weights
