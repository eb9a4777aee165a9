"""Standardised states: one scaler a quantity, chosen so that the equilibrium stays what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scaler:
    """value ↦ value / spread, for each row (feature) of a matrix (features, samples)."""

    spread: Array

    @classmethod
    def fit(cls, values: Array) -> Scaler:
        """The root mean square of each row; 1 for rows that are zero."""
        values = values.astype(np.float64)
        spread = np.sqrt((values**2).mean(1))
        return cls(np.where(spread > 1e-12 * np.abs(values).max(initial=0.0), spread, 1.0))

    def apply(self, values: Array) -> Array:
        """Standardise (features, samples)."""
        return values / self.spread[:, None]


@dataclass(frozen=True)
class Scalers:
    """The scalers of U, Y, X and Z: each feature is brought to a root mean square of 1.

    Means stay: the implicit model has no constant term that could take them up. Unit i of X and of
    Z is divided by one number s_i, the root mean square of x_i: then x/s = φ_s(z/s) holds with
    φ_s(t) = φ(s t)/s, whose slopes are those of φ, so that ‖A‖∞ ≤ κ still makes the model
    well-posed. Different numbers for X and Z would break both.
    """

    U: Scaler
    Y: Scaler
    X: Scaler
    Z: Scaler

    @classmethod
    def fit(cls, states: dict[str, Array]) -> Scalers:
        """From states X, U, Z, Y."""
        X = Scaler.fit(states["X"])
        return cls(Scaler.fit(states["U"]), Scaler.fit(states["Y"]), X, X)

    def apply(self, states: dict[str, Array]) -> dict[str, Array]:
        """Standardise all four."""
        return {key: getattr(self, key).apply(states[key]) for key in ("X", "U", "Z", "Y")}
