"""The solver to use: an interior-point method for all rows, each with a proof of its gap."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idl_core.sim.memory import require, solve_bytes
from idl_core.sim.regenerated_states import regenerated
from idl_core.sim.solvers.base import (
    Array,
    BaseSolver,
    States,
    Weights,
    data_matrix,
    device_of,
    drop_small,
    kappa_of,
    within_ball,
)
from idl_core.sim.solvers.interior_point.block import BlockSolver, RowAnswers
from idl_core.sim.solvers.interior_point.solve import Limits, OnCheck
from idl_core.sim.solvers.problem.compressed_data import compress
from idl_core.sim.solvers.problem.penalty import Penalty, check_penalty_options, objectives
from idl_core.sim.solvers.problem.report import BlockReport, Rows, SolveProgress, SolveReport
from idl_core.sim.solvers.problem.row_problem import ROUNDING


class ADMMSolver(BaseSolver):
    """All rows by a primal-dual interior-point method, each with a proof of how close it is.

    The name is that of torchidl's solver of the same problem; no ADMM is left in it. Samples are
    compressed by a QR factorisation, and columns that no answer needs are left out. Each row then
    takes Mehrotra's predictor-corrector steps, ten or so whatever λ is; a step solves one linear
    system, in the form that is cheapest for the problem: on the columns, on the samples, or in the
    low-curvature subspace alone where λ is small. At every step each row's duality gap is formed
    from the data, and a row leaves the work once that is within `gap_tol`; what is returned is the
    incumbent, its smallest weights set to zero as far as a tenth of the gap pays for. After
    Mehrotra, "On the implementation of a primal-dual interior point method" (SIAM J. Optim. 2,
    1992).

    Args:
        lambda_y, lambda_z: weights of the penalties on [C D] and on [A B].
        l1_ratio, elastic_net: with elastic_net, λ(ρ‖w‖₁ + ½(1 - ρ)‖w‖²) with ρ = l1_ratio takes
            the place of λ‖w‖₁.
        well_pose: whether the rows of A are bound by ‖a‖₁ ≤ κ.
        regen_states: fit C and D to the equilibrium states of the A and B found.
        gap_tol: relative gap at which a row is done: gap ≤ gap_tol · max(objective, 1e-6 · ½‖z‖²).
        max_iter: bound on interior-point steps a row.
        relaxation, polish_rounds: without effect; taken for configurations of earlier versions.
        batch_feature_size: rows solved at a time, to bound memory; None for all.
        tol: magnitudes up to which weights are set to zero afterwards; what that costs is added to
            the gap.
        dtype: in which X and U are held before the work, which is in float64 always.

    Raises:
        ValueError: an option or the data out of range.
        NotEnoughMemory: before allocating, where the problem does not fit.
    """

    def __init__(
        self,
        lambda_y: float = 1e-6,
        lambda_z: float = 1e-6,
        l1_ratio: float = 0.5,
        elastic_net: bool = False,
        well_pose: bool = True,
        regen_states: bool = False,
        gap_tol: float = 1e-5,
        max_iter: int = 2000,
        relaxation: float = 1.6,
        polish_rounds: int = 16,
        batch_feature_size: int | None = None,
        tol: float = 0.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        check_penalty_options(lambda_y, lambda_z, l1_ratio)
        if not gap_tol > 0:
            raise ValueError(f"gap_tol must be positive, not {gap_tol!r}")
        if max_iter < 1:
            raise ValueError(f"max_iter must be at least 1, not {max_iter!r}")
        if not 0 < relaxation < 2:
            raise ValueError(f"relaxation must be in (0, 2), not {relaxation!r}")
        if batch_feature_size is not None and batch_feature_size < 1:
            raise ValueError(f"batch_feature_size must be at least 1, not {batch_feature_size!r}")
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type, not {dtype!r}")
        self.lambda_y, self.lambda_z = lambda_y, lambda_z
        self.l1_ratio, self.elastic_net = l1_ratio, elastic_net
        self.well_pose, self.regen_states = well_pose, regen_states
        self.limits = Limits(gap_tol, max_iter)
        self.batch_feature_size = batch_feature_size
        self.tol, self.dtype = tol, dtype

    @property
    def gap_tol(self) -> float:
        """Relative gap at which a row is done."""
        return self.limits.gap_tol

    def penalty(self, block: str) -> Penalty:
        """The penalty of "AB" or "CD"."""
        strength = self.lambda_z if block == "AB" else self.lambda_y
        return Penalty.of(strength, self.l1_ratio, self.elastic_net)

    def solve(
        self, X: Array, U: Array, Z: Array, Y: Array, model_config: Mapping[str, Any]
    ) -> Weights:
        started = time.perf_counter()
        states = States.of(X, U, Z, Y)
        kappa, device = kappa_of(model_config), device_of(model_config)
        n, m = states.X.shape
        self.refuse_if_too_large(n, len(states.U), m, device)
        self.report = SolveReport(type(self).__name__)
        radius = kappa if self.well_pose else None
        A, B = self._block("AB", states.Z, states, radius, started, device)
        started = time.perf_counter()
        if self.regen_states:
            states = replace(states, X=regenerated(A, B, states.U, model_config))
        C, D = self._block("CD", states.Y, states, None, started, device)
        self.report.warn_of_shortfalls()
        return A, B, C, D

    def bytes_needed(self, n: int, p: int, m: int) -> int:
        """Bytes that a process takes at most for n states, p inputs, m samples."""
        rows = min(n, self.batch_feature_size or n)
        return solve_bytes(n + p, m, rows)

    def refuse_if_too_large(
        self, n: int, p: int, m: int, device: torch.device, processes: int = 1
    ) -> None:
        """Raise `NotEnoughMemory` if the solve of n states, p inputs, m samples will not fit.

        Args:
            processes: that share the device's memory.
        """
        require(
            processes * self.bytes_needed(n, p, m),
            device,
            f"solving {n} rows of {n + p} columns from {m} samples"
            + (f" in {processes} processes" if processes > 1 else ""),
            "use fewer samples, skip_layers, a smaller batch_feature_size, or more memory"
            + (", or fewer processes (devices)" if processes > 1 else ""),
        )

    def _block(
        self,
        block: str,
        target: Array,
        states: States,
        kappa: float | None,
        started: float,
        device: torch.device,
    ) -> tuple[Array, Array]:
        """The rows of one block, with its report."""
        z = torch.from_numpy(np.ascontiguousarray(target)).to(device, torch.float64)
        data, targets = compress(data_matrix(states.X, states.U, device, self.dtype), z)
        rows = BlockSolver(data, len(states.X), kappa, self.penalty(block))
        size = self.batch_feature_size or max(len(z), 1)
        parts = []
        for first in range(0, len(z), size):
            watch = self._watch(block, len(z), first)
            parts.append(rows.solve(targets.rows(slice(first, first + size)), self.limits, watch))
        return finish(self, block, parts, states, target, kappa, started)

    def _watch(self, block: str, rows: int, before: int) -> OnCheck:
        """What the loop tells of its checks, passed on as progress."""

        def on_check(iteration: int, gap: Tensor, done: Tensor) -> None:
            if self.on_progress is not None:
                worst = float(gap.max()) if len(gap) else 0.0
                ended = before + int(done.sum())
                self.on_progress(SolveProgress(block, rows, ended, iteration, worst))

        return on_check


def finish(
    solver: ADMMSolver,
    block: str,
    parts: list[RowAnswers],
    states: States,
    target: Array,
    kappa: float | None,
    started: float,
) -> tuple[Array, Array]:
    """Cut the answers into their two matrices, make them feasible to rounding, and report."""
    n, penalty = len(states.X), solver.penalty(block)
    width = n + len(states.U)
    v = np.concatenate([part.v.double().cpu().numpy() for part in parts] or [np.zeros((0, width))])
    left, right = drop_small(v[:, :n], solver.tol), drop_small(v[:, n:], solver.tol)
    if kappa is not None:
        left = within_ball(left, kappa)
    found = _joined(parts, "objective")
    objective = objectives(left, right, states.X, states.U, target, penalty)
    # The gap holds for the answer as returned: what clipping to the ball, small weights and the
    # evaluation from the data rather than the Gram matrix changed is counted.
    square = (np.asarray(target, np.float64) ** 2).sum(1)
    least = ROUNDING * np.finfo(np.float64).eps * square
    left_by_loop = _joined(parts, "gap")
    gap = np.maximum(left_by_loop + objective - found, least)
    scale = np.maximum(objective, 0.5e-6 * square)
    relative = np.divide(gap, scale, out=np.zeros_like(gap), where=scale > 0)
    assert solver.report is not None
    solver.report.blocks[block] = BlockReport(
        objective,
        gap,
        relative,
        _joined(parts, "iterations").astype(np.int64),
        time.perf_counter() - started,
        _merged([part.history for part in parts]),
    )
    solved = left_by_loop <= solver.gap_tol * np.maximum(found, 0.5e-6 * square)
    _tell_what_is_open(solver, block, relative, solved)
    return left, right


def _tell_what_is_open(solver: ADMMSolver, block: str, relative: Rows, solved: Any) -> None:
    """Say how many rows are short of the gap asked for, and why: `solved` are those that were not
    when their weights were found."""
    assert solver.report is not None
    is_open = ~(relative <= solver.gap_tol)
    after = (
        f"once tol={solver.tol:g} had set small weights to zero"
        if solver.tol
        else "once evaluated from the data"
    )
    for rows, when in (
        (is_open & ~solved, f"after {solver.limits.max_iter} iterations"),
        (is_open & solved, after),
    ):
        if rows.any():
            worst = relative[rows].max()
            solver.report.falls_short(
                f"{int(rows.sum())} of {len(relative)} rows of [{block[0]} {block[1]}] were short "
                f"of the gap of {solver.gap_tol:g} {when}; the largest is {worst:.1e}"
            )


def _joined(parts: list[RowAnswers], name: str) -> Any:
    return np.concatenate([getattr(p, name).cpu().double().numpy() for p in parts] or [np.zeros(0)])


def _merged(histories: list[list[tuple[int, float, float]]]) -> list[tuple[int, float, float]]:
    """One history of several batches of rows: the worst at each iteration, 0 once a batch ended."""
    merged: dict[int, list[tuple[float, float]]] = {}
    for history in histories:
        for iteration, worst, median in history:
            merged.setdefault(iteration, []).append((worst, median))
    return [(i, max(w for w, _ in r), max(m for _, m in r)) for i, r in sorted(merged.items())]
