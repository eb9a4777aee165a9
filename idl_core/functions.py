"""Implicit functions: an activation, a well-posedness condition on A, and the solver's settings.

Subclass one to change it, as in

    class MyFunction(ImplicitFunctionInf):
        mitr = grad_mitr = 500
        tol = grad_tol = 1e-6

        @staticmethod
        def phi(X):
            return X * torch.sigmoid(X)

`dphi` may be given too; where it is left out, automatic differentiation supplies it. A `phi` with
parameters, `phi = nn.PReLU()` or a function of some, is trained with the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.activations import ACTIVATIONS, Activation, DerivativeByAutograd, own_activation
from idl_core.equilibrium import Anderson, Implicit, Picard, fixed_point
from idl_core.equilibrium.solution import LastSolution
from idl_core.equilibrium.transforms import has_no_values, refuse_transforms
from idl_core.implicit_settings import ImplicitSettings
from idl_core.kernels import (
    Affine,
    Method,
    Model,
    equilibrium,
    model_output,
    prediction,
    rows_within,
    triangular_equilibrium,
)
from idl_core.wellposed import PROJECTIONS

# A short window: at the sizes of these models the least-squares problems cost as much as the map.
_ACCELERATION = Anderson(window=3)
# Settings that a class attribute of a function gives; phi and dphi are the activation's.
_CLASS_ATTRIBUTES = [f.name for f in fields(ImplicitSettings) if f.name != "activation"]
# Settings of an implicit function -> whose they are, and how they are called there.
_OF_SOLVER = {
    "tol": ("solver", "tol"),
    "mitr": ("solver", "max_iter"),
    "grad_tol": ("adjoint_solver", "tol"),
    "grad_mitr": ("adjoint_solver", "max_iter"),
}


class ImplicitFunction:
    """X = φ(X Aᵀ + Z) with A as it is: nothing makes it well-posed.

    Class attributes are the defaults of a subclass; an instance keeps its own settings, which may
    be set anew.

    Args:
        settings: all settings at once; None: the class attributes.
        **given: single settings by name, as in `ImplicitFunctionInf(mitr=500)`: they go before
            `settings`, and None leaves one as it is.

    Raises:
        ValueError: a setting out of range or a name that is unknown.
        TypeError: no such setting.
    """

    mitr: int = ImplicitSettings.mitr
    grad_mitr: int = ImplicitSettings.grad_mitr
    tol: float = ImplicitSettings.tol
    grad_tol: float = ImplicitSettings.grad_tol
    kappa: float = ImplicitSettings.kappa
    projection: str = ImplicitSettings.projection
    kernel: str = ImplicitSettings.kernel
    lipschitz: float = 1.0  # of phi: ‖A‖∞ is kept within kappa / max(1, lipschitz)

    _activation: ClassVar[Activation] = ACTIVATIONS["relu"]
    _phi: Callable[[Tensor], Tensor]

    phi: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(ACTIVATIONS["relu"].phi)
    dphi: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(ACTIVATIONS["relu"].dphi)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__
        if "phi" in own and "dphi" not in own:
            cls.dphi = staticmethod(DerivativeByAutograd(cls.phi))
        if "phi" in own or "dphi" in own:
            cls._activation = own_activation(cls.phi, cls.dphi)

    def __init__(self, settings: ImplicitSettings | None = None, **given: Any) -> None:
        if settings is None:
            settings = ImplicitSettings(**{name: getattr(self, name) for name in _CLASS_ATTRIBUTES})
        chosen = ImplicitSettings.of(settings, **given)
        for name in _CLASS_ATTRIBUTES:
            setattr(self, name, getattr(chosen, name))
        if chosen.activation is None:
            self.activation = self._activation
            self._phi = type(self).phi
            if isinstance(self._phi, nn.Module):  # this instance's own, to be trained by itself
                self._take_module(copy.deepcopy(self._phi))
        else:
            self.activation = ACTIVATIONS[chosen.activation]
            self._phi = self.activation.phi
            vars(self).update(phi=self.activation.phi, dphi=self.activation.dphi)
            self.lipschitz = self.activation.lipschitz
        self.solver = Picard(self.tol, self.mitr, then=_ACCELERATION)
        self.adjoint_solver = Picard(self.grad_tol, self.grad_mitr, then=_ACCELERATION)

    def _take_module(self, phi: nn.Module) -> None:
        dphi: Callable[[Tensor], Tensor] = type(self).dphi
        if isinstance(dphi, DerivativeByAutograd):
            dphi = DerivativeByAutograd(phi)
        self._phi, self.activation = phi, own_activation(phi, dphi)
        vars(self).update(phi=phi, dphi=dphi)

    @property
    def phi_module(self) -> nn.Module | None:
        """φ where it is a module, with parameters of its own perhaps."""
        return self._phi if isinstance(self._phi, nn.Module) else None

    def phi_is_learnt(self, like: Tensor) -> bool:
        """Whether φ, applied to states `like` (0, n), depends on what is being trained."""
        if self.activation.name is not None or not torch.is_grad_enabled():
            return False
        if self.phi_module is not None:
            return any(p.requires_grad for p in self.phi_module.parameters())
        return self._phi(like.detach().clone()).requires_grad

    def __setattr__(self, name: str, value: Any) -> None:
        solver, setting = _OF_SOLVER.get(name, ("", ""))
        if solver in vars(self):
            super().__setattr__(solver, replace(vars(self)[solver], **{setting: value}))
        super().__setattr__(name, value)

    @property
    def radius(self) -> float:
        """Bound on ‖A‖∞ that makes the map contract by kappa: smaller where φ can stretch."""
        return self.kappa / max(1.0, self.lipschitz)

    def constrain(self, A: Tensor) -> Tensor:
        """The matrix of the equilibrium from the free parameter A (n, n); differentiable."""
        return A

    def constrain_low_rank(self, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        """The same for A = L Rᵀ, from free L and R (n, r)."""
        return L, R

    def method(self, report: LastSolution, what: str = "the implicit model") -> Method:
        """How it is solved: what a call of the kernels takes beside its tensors."""
        return Method(self.activation, self.solver, self.adjoint_solver, report, self.kernel, what)

    def solve(self, A: Tensor, Z: Tensor, X0: Tensor | None, report: LastSolution) -> Tensor:
        """The equilibrium X (m, n) for a constrained A (n, n) and Z = U Bᵀ (m, n)."""
        return self._equilibrium(Affine(A), Z, X0, report)

    def _equilibrium(self, A: Affine, Z: Tensor, X0: Tensor | None, report: LastSolution) -> Tensor:
        refuse_transforms(*A, Z, X0)
        if has_no_values(Z):
            return self._phi(Z + _product(Z, A))
        if self.phi_is_learnt(Z[:0]):
            return self._by_iterating(A, Z, X0, report)
        return _checked(equilibrium(A, Z, X0, self.method(report)), report)

    def _by_iterating(
        self, A: Affine, Z: Tensor, X0: Tensor | None, report: LastSolution
    ) -> Tensor:
        """The equilibrium as a fixed point of any map, differentiable in all that φ depends on."""
        if self.kernel not in ("auto", "torch"):
            raise ValueError(
                f"kernel={self.kernel!r} cannot solve this: phi has parameters of its own; "
                "kernel='auto' can"
            )
        dtype, working = Z.dtype, torch.promote_types(Z.dtype, torch.float32)
        with torch.autocast(Z.device.type, enabled=False):
            A = Affine(*(None if M is None else M.to(working) for M in A))  # type: ignore[arg-type]
            Z, phi = Z.to(working), self._phi_in(working)
            start = Z.detach() if X0 is None else X0.to(working)
            solution = fixed_point(
                lambda X: phi(Z + _product(X, A)), start, self.solver, Implicit(self.adjoint_solver)
            )
        report.forward = solution.with_value(solution.value.detach())
        return solution.value.to(dtype)

    def _phi_in(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """φ with its parameters, where it is a module, in the precision of a solve."""
        module = self.phi_module
        if module is None:
            return self._phi
        named = {name: value.to(dtype) for name, value in module.named_parameters()}
        return lambda X: torch.func.functional_call(module, named, (X,))

    def predict(
        self,
        U: Tensor,
        X0: Tensor | None,
        left: Tensor,
        right: Tensor | None,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        report: LastSolution,
    ) -> Tensor:
        """Ŷ = X Cᵀ + U Dᵀ (m, q) at the equilibrium of A = left (n, n) or, of a low rank, the
        factors (n, r) of A = left rightᵀ, constrained."""
        cls = type(self)
        if right is None and cls.solve is not ImplicitFunction.solve:  # it finds X its own way
            return prediction(U, self.solve(left, F.linear(U, B), X0, report), C, D)
        if right is not None and cls.solve_low_rank is not ImplicitFunction.solve_low_rank:
            X = self.solve_low_rank(left, right, F.linear(U, B), X0, report)
            return prediction(U, X, C, D)
        if has_no_values(U) or self.phi_is_learnt(U.new_empty(0, len(left))):
            X = self._equilibrium(Affine(left, right), F.linear(U, B), X0, report)
            return prediction(U, X, C, D)
        refuse_transforms(U, X0, left, right, B, C, D)
        Y = model_output(Model(left, right, B, C, D), U, X0, self.method(report))
        return _checked(Y, report)

    def solve_low_rank(
        self, L: Tensor, R: Tensor, Z: Tensor, X0: Tensor | None, report: LastSolution
    ) -> Tensor:
        """The equilibrium X (m, n) for A = L Rᵀ, constrained L and R (n, r), Z (m, n)."""
        return self._equilibrium(Affine(L, R), Z, X0, report)


class ImplicitFunctionInf(ImplicitFunction):
    """Well-posed by ‖A‖∞ ≤ kappa < 1: the state equation allows feedback and has one solution."""

    def constrain(self, A: Tensor) -> Tensor:
        return self._project(A, self.radius)

    def constrain_low_rank(self, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        """‖L‖∞ ≤ kappa and ‖Rᵀ‖∞ ≤ 1, so that ‖L Rᵀ‖∞ ≤ kappa without forming the product."""
        right = self._project(R.T, 1.0)
        return self._project(L, self.radius), right.T

    def _project(self, A: Tensor, radius: float) -> Tensor:
        # Every projection leaves what is within as it is, which is most often so.
        if not has_no_values(A) and rows_within(A, radius, self.kernel):
            return A
        return PROJECTIONS[self.projection](A, radius)


class ImplicitFunctionTriu(ImplicitFunction):
    """A strictly upper triangular: a feed-forward network, solved exactly, whatever ‖A‖∞."""

    def __init__(self, settings: ImplicitSettings | None = None, **given: Any) -> None:
        super().__init__(settings, **given)
        if self.kernel in ("numba", "triton"):
            raise ValueError("kernel must be auto or torch: a triangular A needs no iteration")

    def constrain(self, A: Tensor) -> Tensor:
        return A.triu(1)

    def constrain_low_rank(self, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError("a low-rank A cannot be strictly triangular: use ImplicitFunctionInf")

    def solve(self, A: Tensor, Z: Tensor, X0: Tensor | None, report: LastSolution) -> Tensor:
        if has_no_values(Z):
            return super().solve(A, Z, X0, report)
        refuse_transforms(A, Z)
        if self.phi_is_learnt(Z[:0]):
            raise ValueError(
                "a phi with parameters of its own is not trained with a triangular A: use "
                "ImplicitFunctionInf"
            )
        return _checked(triangular_equilibrium(A, Z, self.method(report)), report)


def _product(X: Tensor, A: Affine) -> Tensor:
    """X Aᵀ (m, n)."""
    return X @ A.left.T if A.right is None else (X @ A.right) @ A.left.T


def _checked(X: Tensor, report: LastSolution) -> Tensor:
    if report.forward is not None and not torch.compiler.is_compiling():
        report.forward.warn_unless_converged("the implicit model")
    return X
