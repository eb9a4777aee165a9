"""A of low rank, well-posed through its factors, by alternating projected gradient steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idl_core.sim.regenerated_states import regenerated
from idl_core.sim.solvers.base import (
    Array,
    BaseSolver,
    States,
    Weights,
    device_of,
    kappa_of,
    within_ball,
)
from idl_core.sim.solvers.least_square import least_squares
from idl_core.sim.solvers.problem.penalty import Penalty, objectives
from idl_core.sim.solvers.problem.report import BlockReport, SolveProgress, SolveReport
from idl_core.wellposed import project_rows


class ProjectedGDLowRankSolver(BaseSolver):
    """A = L Rᵀ with ‖L‖∞ ≤ κ and ‖Rᵀ‖∞ ≤ 1, so that ‖A‖∞ ≤ κ whatever the rank.

    B is eliminated: for every A its best value is a least-squares fit, so that L and R are found
    on ½‖(Z - L RᵀX)P‖² + ½λ(‖L‖² + ‖R‖²), P projecting onto what U cannot express. Steps alternate
    between L and R, each a gradient step of the length that the block's Lipschitz constant allows,
    then the projection (Bolte, Sabach and Teboulle, "Proximal alternating linearized minimization",
    Math. Program. 146, 2014). Steps start from a point extrapolated along the last, as in
    Nesterov's method, as long as that leads downhill: the objective never rises. The problem is not
    convex; the answer is a stationary point. C and D are least-squares fits.

    Args:
        rank: r; None takes n.
        num_epoch: most pairs of steps; fewer where the objective no longer falls.
        lambda_z: weight λ.
        lr: length of a step, in units of the block's 1/Lipschitz; in (0, 2).
        verbose_epoch: epochs between two reports of progress.
        regen_states: fit C and D to the equilibrium states of the A and B found.
        tol: magnitudes of C and D up to which they are set to zero afterwards.
    """

    def __init__(
        self,
        rank: int | None = None,
        num_epoch: int = 10000,
        lambda_z: float = 1e-6,
        lr: float = 1.0,
        verbose_epoch: int = 100,
        regen_states: bool = False,
        tol: float = 1e-6,
    ) -> None:
        if rank is not None and rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank!r}")
        if num_epoch < 1 or verbose_epoch < 1:
            raise ValueError("num_epoch and verbose_epoch must be at least 1")
        if not 0 < lr < 2:
            raise ValueError(f"lr must be in (0, 2), in units of 1/Lipschitz, not {lr!r}")
        if not lambda_z >= 0:
            raise ValueError(f"lambda_z must be at least 0, not {lambda_z!r}")
        self.rank, self.num_epoch, self.lambda_z = rank, num_epoch, lambda_z
        self.lr, self.verbose_epoch = lr, verbose_epoch
        self.regen_states, self.tol = regen_states, tol

    def solve(
        self, X: Array, U: Array, Z: Array, Y: Array, model_config: Mapping[str, Any]
    ) -> Weights:
        started = time.perf_counter()
        states = States.of(X, U, Z, Y)
        n = len(states.X)
        if self.rank is not None and self.rank > n:
            raise ValueError(f"rank must be in 1..{n} (the number of states), not {self.rank!r}")
        self.report = SolveReport(type(self).__name__)
        L, R, epochs = self._factors(states, kappa_of(model_config), device_of(model_config))
        A = within_ball(L @ R.T, kappa_of(model_config))
        rest = states.Z.astype(np.float64) - A @ states.X.astype(np.float64)
        _, B = least_squares(states.X[:0], states.U, rest, 0.0)
        self._tell("AB", A, B, states, states.Z, epochs, started)
        started = time.perf_counter()
        if self.regen_states:
            states = replace(states, X=regenerated(A, B, states.U, model_config))
        C, D = least_squares(states.X, states.U, states.Y, self.tol)
        self._tell("CD", C, D, states, states.Y, 1, started)
        self.report.warn_of_shortfalls()
        return A, B, C, D

    def _tell(
        self,
        block: str,
        left: Array,
        right: Array,
        states: States,
        target: Array,
        epochs: int,
        started: float,
    ) -> None:
        assert self.report is not None
        misfit = objectives(left, right, states.X, states.U, target, Penalty(0.0, 0.0))
        count = np.full(len(left), epochs, np.int64)
        seconds = time.perf_counter() - started
        self.report.blocks[block] = BlockReport(misfit, None, None, count, seconds)

    def _factors(
        self, states: States, kappa: float, device: torch.device
    ) -> tuple[Array, Array, int]:
        """L and R (n, r), and the epochs taken."""
        S, T = (torch.from_numpy(part).to(device) for part in _without_inputs(states))
        L, R = _start(S, T, self.rank or len(S), kappa)
        if not float(S.diagonal().sum()):
            return L.cpu().numpy(), R.cpu().numpy(), 0  # U alone expresses all: A has no say
        largest = float(torch.linalg.matrix_norm(S, 2))
        before, last, momentum, fall = (L, R), torch.inf, 0, torch.inf
        for epoch in range(1, self.num_epoch + 1):
            beta = momentum / (momentum + 3)
            ahead = [now + beta * (now - old) for now, old in zip((L, R), before, strict=True)]
            before = (L, R)
            L = project_rows(self._step(ahead[0], R.T @ S @ R, T @ R), kappa)
            LL = L.T @ L
            bound = float(torch.linalg.matrix_norm(LL, 2)) * largest
            slope = S @ ahead[1] @ LL - T.T @ L + self.lambda_z * ahead[1]
            R = ahead[1] - self.lr / (bound + self.lambda_z + _TINY) * slope
            R = project_rows(R.T, 1.0).T
            value = self._value(S, T, L, R)
            # Extrapolation that has led uphill starts anew from where it stands.
            momentum = momentum + 1 if value <= last else 0
            if value > last:
                L, R = before
            else:
                fall, last = (last - value) / max(abs(value), _TINY), value
            if fall <= 1e-9 and momentum > 10:
                break
            if self.on_progress is not None and epoch % self.verbose_epoch == 0:
                self.on_progress(SolveProgress("AB", len(S), 0, epoch, float("nan")))
        else:
            assert self.report is not None
            self.report.falls_short(
                f"the objective had not settled after {epoch} epochs (num_epoch): it last fell by "
                f"{fall:.1e} of itself"
            )
        return L.cpu().numpy(), R.cpu().numpy(), epoch

    def _step(self, L: Tensor, inner: Tensor, pull: Tensor) -> Tensor:
        """A gradient step of L on ½ tr(L inner Lᵀ) - tr(pull Lᵀ) + ½λ‖L‖²."""
        length = self.lr / float(torch.linalg.matrix_norm(inner, 2) + self.lambda_z + _TINY)
        return L - length * (L @ inner - pull + self.lambda_z * L)

    def _value(self, S: Tensor, T: Tensor, L: Tensor, R: Tensor) -> float:
        """The objective, less what does not depend on L and R."""
        fit = 0.5 * ((L.T @ L) * (R.T @ S @ R)).sum() - (L * (T @ R)).sum()
        return float(fit + 0.5 * self.lambda_z * ((L * L).sum() + (R * R).sum()))


_TINY = 1e-300


def _without_inputs(states: States) -> tuple[Array, Array]:
    """S = XPXᵀ and T = ZPXᵀ (n, n), P the projection off the row space of U."""
    X, U, Z = (part.astype(np.float64) for part in (states.X, states.U, states.Z))
    if len(U):
        _, size, basis = np.linalg.svd(U, full_matrices=False)
        basis = basis[size > size.max(initial=0.0) * max(U.shape) * np.finfo(np.float64).eps]
        X = X - (X @ basis.T) @ basis
        # Of nothing but rounding nothing is left.
        small = np.abs(X).max(initial=0.0) <= 1e-12 * np.abs(states.X).max(initial=0.0)
        X = np.zeros_like(X) if small else X
    return X @ X.T, Z @ X.T


def _start(S: Tensor, T: Tensor, rank: int, kappa: float) -> tuple[Tensor, Tensor]:
    """The truncated singular value decomposition of the unconstrained A, within the constraints."""
    ridge = 1e-8 * float(S.diagonal().mean() if len(S) else 0.0) + 1e-300
    A = torch.linalg.solve(S + ridge * torch.eye(len(S), dtype=S.dtype, device=S.device), T.T).T
    left, size, right = torch.linalg.svd(A)
    L, R = left[:, :rank] * size[:rank], right[:rank].T
    sums = R.abs().sum(0).clamp(min=1e-300)
    return project_rows(L * sums, kappa), project_rows((R / sums).T, 1.0).T
