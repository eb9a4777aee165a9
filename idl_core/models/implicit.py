"""The implicit model: X = φ(AX + BU), Ŷ = CX + DU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.equilibrium.solution import LastSolution
from idl_core.functions import ImplicitFunction, ImplicitFunctionInf
from idl_core.implicit_settings import ImplicitSettings
from idl_core.models.numpy_reading import let_numpy_read
from idl_core.wellposed import low_rank_product


class ImplicitModel(nn.Module):
    """Predicts Ŷ = CX + DU from the equilibrium X = φ(AX + BU).

    El Ghaoui et al., "Implicit deep learning", SIMODS 3 (2021). The parameters keep the paper's
    shapes: A (n, n), B (n, p), C (q, n), D (q, p); with `bias`, B and D have one more column, for
    an input that is constantly 1; with `is_low_rank`, A = L Rᵀ with L and R (n, r).

    Three sizes without names may also be given in the order hidden, input, output, as in
    `ImplicitModel(n, p, q)`: the number of features of the first batch tells which it is, and a
    warning says it. Names leave no doubt.

    Args:
        input_dim: p, number of features of a flattened input.
        output_dim: q.
        hidden_dim: n, number of states.
        f: class of the implicit function; decides the activation and the condition on A.
        no_D: leave D out, so that Ŷ = CX.
        bias: add a constant input.
        mitr, grad_mitr, tol, grad_tol, kappa: single settings of f, see `ImplicitSettings`; None:
            as in `settings`.
        is_low_rank, low_rank: A = L Rᵀ (two names of one switch).
        rank: r, needed with a low rank.
        settings: all settings of f; None: those of the class f.
        **given: the other settings by name, as in `activation="tanh"`, `projection="ball"`,
            `kernel="torch"`.

    Raises:
        ValueError: a size or setting out of range.
    """

    A: nn.Parameter
    L: nn.Parameter
    R: nn.Parameter
    B: nn.Parameter
    C: nn.Parameter
    D: nn.Parameter | None
    phi: nn.Module
    __call__: Callable[..., Tensor]  # of nn.Module, which does not say what forward returns
    _named: bool  # the sizes were, or a batch has told their order

    def __new__(cls, *sizes: Any, **options: Any) -> ImplicitModel:
        model = super().__new__(cls)
        # A subclass may have an order of its own.
        object.__setattr__(model, "_named", cls is not ImplicitModel or len(sizes) < 3)
        return model

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dim: int,
        f: type[ImplicitFunction] = ImplicitFunctionInf,
        no_D: bool = False,
        bias: bool = False,
        mitr: int | None = None,
        grad_mitr: int | None = None,
        tol: float | None = None,
        grad_tol: float | None = None,
        kappa: float | None = None,
        is_low_rank: bool = False,
        rank: int | None = None,
        *,
        low_rank: bool = False,
        settings: ImplicitSettings | None = None,
        **given: Any,
    ) -> None:
        super().__init__()
        for name, size in (
            ("input_dim", input_dim),
            ("output_dim", output_dim),
            ("hidden_dim", hidden_dim),
        ):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size!r}")
        self.input_dim, self.output_dim, self.hidden_dim = input_dim, output_dim, hidden_dim
        self.bias, self.no_D = bias, no_D
        self.is_low_rank = is_low_rank or low_rank
        given |= {"mitr": mitr, "grad_mitr": grad_mitr, "tol": tol, "grad_tol": grad_tol}
        self.f = f(settings=settings, kappa=kappa, **given)
        self.rank = rank
        if self.is_low_rank and (rank is None or not 1 <= rank <= hidden_dim):
            raise ValueError(f"rank must be in 1..{hidden_dim} (hidden_dim), not {rank!r}")
        if no_D:
            self.D = None
        for name, shape in self._shapes().items():
            setattr(self, name, nn.Parameter(_initial(shape, hidden_dim)))
        if self.is_low_rank:
            self.f.constrain_low_rank(self.L, self.R)  # says now if f cannot be of low rank
        if self.f.phi_module is not None:
            self.phi = self.f.phi_module  # its parameters are the model's
        self.last_solution = LastSolution()
        self._drawn = self._versions()
        let_numpy_read(self)

    def _shapes(self) -> dict[str, tuple[int, int]]:
        """The parameters and their shapes."""
        n, p, q = self.hidden_dim, self.input_dim + self.bias, self.output_dim
        of_A = {"A": (n, n)}
        if self.is_low_rank:
            assert self.rank is not None
            of_A = {"L": (n, self.rank), "R": (n, self.rank)}
        of_D = {} if self.no_D else {"D": (q, p)}
        return of_A | {"B": (n, p), "C": (q, n)} | of_D

    def forward(self, U: Tensor, X0: Tensor | None = None) -> Tensor:
        """Predict from a batch.

        Args:
            U: (m, *input), flattened to (m, input_dim).
            X0: (m, hidden_dim), where the solve starts; it changes the time taken, not the answer.

        Returns:
            Ŷ (m, output_dim). `last_solution` then tells the iterations and residuals.
        """
        # Only written: threads may share the model, and each call reads what is its own.
        self.last_solution = report = LastSolution()
        return self.predict(U, X0, report)

    def predict(self, U: Tensor, X0: Tensor | None, report: LastSolution) -> Tensor:
        """The same; how it was solved is told to `report` and to nobody else."""
        U = self._inputs(U, X0)
        left, right = self._constrained()
        return self.f.predict(U, X0, left, right, self.B, self.C, self.D, report)

    def equilibrium(self, U: Tensor, X0: Tensor | None = None) -> Tensor:
        """The states X (m, hidden_dim) for a batch U, differentiable."""
        self.last_solution = report = LastSolution()
        U = self._inputs(U, X0)
        left, right = self._constrained()
        Z = F.linear(U, self.B)
        if right is None:
            return self.f.solve(left, Z, X0, report)
        return self.f.solve_low_rank(left, right, Z, X0, report)

    def effective_A(self) -> Tensor:
        """The matrix A (n, n) of the equilibrium, after its constraint; formed from L and R too."""
        left, right = self._constrained()
        return left if right is None else low_rank_product(left, right)

    def extra_repr(self) -> str:
        return (
            f"input_dim={self.input_dim}, output_dim={self.output_dim}, "
            f"hidden_dim={self.hidden_dim}, f={type(self.f).__name__}"
        )

    def _inputs(self, U: Tensor, X0: Tensor | None) -> Tensor:
        if U.dim() < 2:
            raise ValueError(f"inputs have shape {tuple(U.shape)}, not (samples, features)")
        U = U.flatten(1)
        if U.shape[1] != self.input_dim:
            self._take_other_order(U.shape[1])
        if X0 is not None and X0.shape != (U.shape[0], self.hidden_dim):
            raise ValueError(f"X0 has shape {tuple(X0.shape)}, not {(U.shape[0], self.hidden_dim)}")
        return F.pad(U, (0, 1), value=1.0) if self.bias else U

    def _take_other_order(self, features: int) -> None:
        """Take the three sizes as hidden, input, output, where the first batch shows that they were
        given so and the parameters are still as they were drawn; they are drawn anew, in place.

        Raises: ValueError where that is not so.
        """
        given = (self.input_dim, self.output_dim, self.hidden_dim)
        untouched = not self._named and self._versions() == self._drawn
        small_enough = not self.is_low_rank or (self.rank or 0) <= given[0]
        if features != given[1] or not untouched or not small_enough:
            orders = (
                f"; ImplicitModel{given} is in the order input_dim, output_dim, hidden_dim or, "
                "where the first batch has as many features as the second says, hidden, input, "
                "output: sizes by name leave no doubt"
            )
            raise ValueError(
                f"inputs have {features} features a sample; the model takes {self.input_dim}"
                + ("" if self._named else orders)
            )
        self.hidden_dim, self.input_dim, self.output_dim = given
        warnings.warn(
            f"ImplicitModel{given} was made for inputs of {given[0]} features, and they have "
            f"{given[1]}: its sizes are taken as hidden_dim={given[0]}, input_dim={given[1]}, "
            f"output_dim={given[2]}. Give them by name, or as input_dim, output_dim, hidden_dim.",
            UserWarning,
            stacklevel=4,
        )
        with torch.no_grad():
            for name, shape in self._shapes().items():
                parameter = getattr(self, name)
                parameter.data = _initial(shape, self.hidden_dim).to(parameter)
        self._named = True

    def _versions(self) -> list[int]:
        """Counts of what was written to each parameter: weights that were loaded are kept."""
        return [getattr(self, name)._version for name in self._shapes()]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ImplicitModel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        let_numpy_read(self)  # some conversions make new parameters
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The last solution is as large as the last batch, and no part of the model.
        return {**self.__dict__, "last_solution": LastSolution()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {"_named": True, "_drawn": [], "rank": None} | state
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        let_numpy_read(self)

    def __prepare_scriptable__(self) -> nn.Module:
        raise NotImplementedError(
            "torch.jit.script cannot follow an equilibrium; torch.compile can, and state_dict and "
            "pickle carry the model"
        )

    def _constrained(self) -> tuple[Tensor, Tensor | None]:
        """A and None or, of a low rank, the factors of A; after their constraint."""
        if self.is_low_rank:
            return self.f.constrain_low_rank(self.L, self.R)
        return self.f.constrain(self.A), None


def _initial(shape: tuple[int, int], hidden_dim: int) -> Tensor:
    """Normal entries of deviation 1/hidden_dim: ‖A‖∞ then starts near 0.8, within the ball."""
    return torch.randn(shape) / hidden_dim
