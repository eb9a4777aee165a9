"""The grid of problems that every solver is run over, and what each must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """States X (n, m), U (p, m), Z (n, m), Y (q, m), with κ and λ."""

    name: str
    X: Array
    U: Array
    Z: Array
    Y: Array
    kappa: float = 0.9
    strength: float = 1e-3

    @property
    def config(self) -> dict[str, Any]:
        """A model's configuration."""
        return {"kappa": self.kappa, "device": "cpu", "atol": 1e-8, "activation_fn": _relu}

    def states(self) -> tuple[Array, Array, Array, Array]:
        """X, U, Z, Y."""
        return self.X, self.U, self.Z, self.Y


def _relu(x: Any) -> Any:
    return x.clamp(min=0)


def make(name: str, n: int, p: int, q: int, m: int, seed: int = 0, **settings: Any) -> Case:
    """States of a random two-layer network, so that Z depends on X as well as on U."""
    rng = np.random.default_rng(seed)
    dtype = settings.pop("dtype", np.float64)
    half = n // 2
    U = rng.normal(size=(p, m))
    first = rng.normal(size=(n - half, p)) @ U / np.sqrt(p)
    second = rng.normal(size=(half, n - half)) @ np.maximum(first, 0)
    Z = np.concatenate([second, first])
    X = np.maximum(Z, 0)
    Y = rng.normal(size=(q, half)) @ X[:half] if half else rng.normal(size=(q, n)) @ X
    return Case(name, *(part.astype(dtype) for part in (X, U, Z, Y)), **settings)


def with_constant_pixels(case: Case, name: str) -> Case:
    """Some inputs are constantly 0, and one state never fires."""
    U, X, Z = case.U.copy(), case.X.copy(), case.Z.copy()
    U[::3] = 0
    X[-1], Z[-1] = 0, -1
    return Case(name, X, U, Z, case.Y, case.kappa, case.strength)


def with_duplicates(case: Case, name: str) -> Case:
    """Two states and two inputs are the same."""
    U, X, Z = case.U.copy(), case.X.copy(), case.Z.copy()
    U[1], X[1], Z[1] = U[0], X[0], Z[0]
    return Case(name, X, U, Z, case.Y, case.kappa, case.strength)


CASES = [
    make("many samples", 8, 10, 3, 60),
    make("few samples", 8, 24, 3, 15, strength=1e-2),
    make("hardly any samples", 6, 40, 2, 7, strength=0.1),
    make("one sample", 6, 5, 2, 1),
    make("tiny penalty", 8, 10, 3, 60, strength=1e-6),
    make("large penalty", 8, 10, 3, 60, strength=30.0),
    make("no penalty", 8, 10, 3, 60, strength=0.0),
    make("no penalty, few samples", 6, 24, 2, 12, strength=0.0),
    make("kappa 0", 8, 10, 3, 60, kappa=0.0),
    make("float32", 8, 10, 3, 60, dtype=np.float32),
    make("one state", 1, 4, 1, 20),
    with_constant_pixels(make("", 8, 12, 3, 50), "constant pixels"),
    with_duplicates(make("", 8, 12, 3, 50), "duplicates"),
    with_duplicates(make("", 8, 12, 3, 50, strength=0.0), "no penalty, duplicates"),
]
IDS = [case.name for case in CASES]
# Whose outputs are fitted to regenerated states.
REGENERATED = make("", 6, 8, 2, 40, strength=1e-6)
