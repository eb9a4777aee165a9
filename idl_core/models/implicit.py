"""The implicit model: X = φ(AX + BU), Ŷ = CX + DU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.equilibrium.solution import LastSolution
from idl_core.functions import ImplicitFunction, ImplicitFunctionInf


class ImplicitModel(nn.Module):
    """Predicts Ŷ = CX + DU from the equilibrium X = φ(AX + BU).

    El Ghaoui et al., "Implicit deep learning", SIMODS 3 (2021). The parameters keep the paper's
    shapes: A (n, n), B (n, p), C (q, n), D (q, p); with `bias`, B and D have one more column, for
    an input that is constantly 1; with `is_low_rank`, A = L Rᵀ with L and R (n, r).

    Args:
        input_dim: p, number of features of a flattened input.
        output_dim: q.
        hidden_dim: n, number of states.
        f: class of the implicit function; decides the activation and the condition on A.
        no_D: leave D out, so that Ŷ = CX.
        bias: add a constant input.
        mitr, grad_mitr: most iterations, forward and adjoint; None takes f's, 300.
        tol, grad_tol: tolerances, forward and adjoint; None takes f's, 3e-6.
        kappa: bound on ‖A‖∞; None takes f's, 0.99.
        is_low_rank, low_rank: A = L Rᵀ (two names of one switch).
        rank: r, needed with a low rank.
        activation: name of an activation, in place of f's.
        projection: how ‖A‖∞ ≤ kappa is kept: "ball", "row" or "global"; None takes f's.
        kernel: what solves: "auto", "torch", "numba" or "triton"; None takes f's, auto.

    Raises:
        ValueError: a size or setting out of range.
    """

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
        activation: str | None = None,
        projection: str | None = None,
        kernel: str | None = None,
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
        self.f = f(
            mitr=mitr,
            grad_mitr=grad_mitr,
            tol=tol,
            grad_tol=grad_tol,
            kappa=kappa,
            projection=projection,
            activation=activation,
            kernel=kernel,
        )
        n, p, q = hidden_dim, input_dim + bias, output_dim
        if self.is_low_rank:
            if rank is None or not 1 <= rank <= n:
                raise ValueError(f"rank must be in 1..{n} (hidden_dim), not {rank!r}")
            self.L, self.R = _initial(n, rank, n), _initial(n, rank, n)
            self.f.constrain_low_rank(self.L, self.R)  # says now if f cannot be of low rank
        else:
            self.A = _initial(n, n, n)
        self.B = _initial(n, p, n)
        self.C = _initial(q, n, n)
        self.D = None if no_D else _initial(q, p, n)
        self.last_solution = LastSolution()

    def forward(self, U: Tensor, X0: Tensor | None = None) -> Tensor:
        """Predict from a batch.

        Args:
            U: (m, *input), flattened to (m, input_dim).
            X0: (m, hidden_dim), where the solve starts; it changes the time taken, not the answer.

        Returns:
            Ŷ (m, output_dim). `last_solution` then tells the iterations and residuals.
        """
        U = self._inputs(U, X0)
        self.last_solution = LastSolution()
        left, right = self._constrained()
        return self.f.predict(U, X0, left, right, self.B, self.C, self.D, self.last_solution)

    def equilibrium(self, U: Tensor, X0: Tensor | None = None) -> Tensor:
        """The states X (m, hidden_dim) for a batch U, differentiable."""
        U = self._inputs(U, X0)
        self.last_solution = LastSolution()
        left, right = self._constrained()
        Z = F.linear(U, self.B)
        if right is None:
            return self.f.solve(left, Z, X0, self.last_solution)
        return self.f.solve_low_rank(left, right, Z, X0, self.last_solution)

    def effective_A(self) -> Tensor:
        """The matrix A (n, n) of the equilibrium, after its constraint; formed from L and R too."""
        left, right = self._constrained()
        return left if right is None else left @ right.T

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
            raise ValueError(
                f"inputs have {U.shape[1]} features a sample; the model takes {self.input_dim}"
            )
        if X0 is not None and X0.shape != (U.shape[0], self.hidden_dim):
            raise ValueError(f"X0 has shape {tuple(X0.shape)}, not {(U.shape[0], self.hidden_dim)}")
        return F.pad(U, (0, 1), value=1.0) if self.bias else U

    def _constrained(self) -> tuple[Tensor, Tensor | None]:
        """A and None or, of a low rank, the factors of A; after their constraint."""
        if self.is_low_rank:
            return self.f.constrain_low_rank(self.L, self.R)
        return self.f.constrain(self.A), None


def _initial(rows: int, columns: int, hidden_dim: int) -> nn.Parameter:
    """Normal entries of deviation 1/hidden_dim: ‖A‖∞ then starts near 0.8, within the ball."""
    return nn.Parameter(torch.randn(rows, columns) / hidden_dim)
