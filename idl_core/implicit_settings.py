"""The settings of an implicit function: how its equilibrium is kept well-posed and solved."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from idl_core.activations import ACTIVATIONS
from idl_core.kernels import KERNELS
from idl_core.wellposed import PROJECTIONS


@dataclass(frozen=True, kw_only=True)
class ImplicitSettings:
    """Settings of `ImplicitFunction`, and so of every model whose layer is one.

    Passed whole, as in `ImplicitModel(8, 1, 20, settings=ImplicitSettings(tol=1e-8))`.

    Attributes:
        mitr, grad_mitr: most iterations of the forward and of the adjoint solve.
        tol: bound on max|φ(AX + Z) - X| of each sample.
        grad_tol: the same for the adjoint, relative to the largest incoming gradient.
        kappa: bound on ‖A‖∞, in [0, 1).
        projection: how A is brought within kappa: a name in `idl_core.wellposed.PROJECTIONS`.
        activation: a name in `idl_core.activations.ACTIVATIONS`; None: the function's own phi.
        kernel: the backend. "auto" takes Triton on a GPU and Numba on a CPU for what they can
            solve, torch for the rest; "torch", "numba" and "triton" take that one alone, and what
            it cannot solve is a ValueError.

    Raises:
        ValueError: a value out of range or a name that is unknown.
    """

    mitr: int = 300
    grad_mitr: int = 300
    tol: float = 3e-6
    grad_tol: float = 3e-6
    kappa: float = 0.99
    projection: str = "global"
    activation: str | None = None
    kernel: str = "auto"

    def __post_init__(self) -> None:
        for name in ("mitr", "grad_mitr"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        for name in ("tol", "grad_tol"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")
        if not 0 <= self.kappa < 1:
            raise ValueError(f"kappa must be in [0, 1), not {self.kappa!r}")
        for name, known in (
            ("projection", PROJECTIONS),
            ("kernel", KERNELS),
            ("activation", ACTIVATIONS),
        ):
            value = getattr(self, name)
            if value not in known and not (name == "activation" and value is None):
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")

    @classmethod
    def of(cls, settings: ImplicitSettings | None, **given: Any) -> ImplicitSettings:
        """`settings`, the defaults where that is None, with those that are given by name: None
        leaves one as it is.

        Raises: TypeError where `settings` is something else or a name is unknown; ValueError.
        """
        if not isinstance(settings, ImplicitSettings | None):
            raise TypeError(f"settings must be ImplicitSettings, not {settings!r}")
        names = {field.name for field in fields(cls)}
        known = {k: v for k, v in given.items() if v is not None or k not in names}
        return replace(settings or cls(), **known)
