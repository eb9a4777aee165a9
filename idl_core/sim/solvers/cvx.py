"""CVXPY with Clarabel: the reference, for small problems."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from idl_core.sim.regenerated_states import regenerated
from idl_core.sim.solvers.base import (
    Array,
    BaseSolver,
    States,
    Weights,
    drop_small,
    kappa_of,
    within_ball,
)
from idl_core.sim.solvers.problem.penalty import Penalty, check_penalty_options, objectives
from idl_core.sim.solvers.problem.report import BlockReport, SolveProgress, SolveReport


class InfeasibleMatch(ValueError):
    """No weights match the states exactly."""


@dataclass(frozen=True)
class _Task:
    """Some rows: min ½‖z - Mw‖² + penalty, or subject to z = Mw, the ball where kappa is given."""

    first: int
    target: Array  # (rows, m)
    states: int
    kappa: float | None
    penalty: Penalty
    regularized: bool
    accuracy: float | None


class CVXSolver(BaseSolver):
    """Each few rows as one convex program, solved by CVXPY's interface to Clarabel.

    Args:
        num_row: rows in one program.
        batch_size: rows handed out at a time; progress is told after each batch.
        num_processes: most worker processes; never more than the machine has processors.
        lambda_y, lambda_z: weights of the penalties on [C D] and on [A B].
        l1_ratio, elastic_net: with elastic_net, λ(ρ‖w‖₁ + ½(1 - ρ)‖w‖²) with ρ = l1_ratio takes
            the place of λ‖w‖₁.
        regularized: minimise the misfit too; False asks for an exact match z = Mw instead.
        well_pose: whether the rows of A are bound by ‖a‖₁ ≤ κ.
        regen_states: fit C and D to the equilibrium states of the A and B found.
        tol: magnitudes up to which weights are set to zero afterwards.
        accuracy: Clarabel's tolerances on gap and feasibility; None takes its own, 1e-8.

    Raises:
        ValueError: an option or the data out of range.
        InfeasibleMatch: with regularized=False, where no weights match.
    """

    def __init__(
        self,
        num_row: int = 1,
        batch_size: int = 32,
        num_processes: int = 32,
        lambda_y: float = 1e-6,
        lambda_z: float = 1e-6,
        l1_ratio: float = 0.5,
        elastic_net: bool = False,
        regularized: bool = True,
        well_pose: bool = True,
        regen_states: bool = False,
        tol: float = 1e-6,
        accuracy: float | None = None,
    ) -> None:
        check_penalty_options(lambda_y, lambda_z, l1_ratio)
        for name, value in (
            ("num_row", num_row),
            ("batch_size", batch_size),
            ("num_processes", num_processes),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        self.num_row, self.batch_size, self.num_processes = num_row, batch_size, num_processes
        self.lambda_y, self.lambda_z = lambda_y, lambda_z
        self.l1_ratio, self.elastic_net = l1_ratio, elastic_net
        self.regularized, self.well_pose = regularized, well_pose
        self.regen_states, self.tol, self.accuracy = regen_states, tol, accuracy

    def solve(
        self, X: Array, U: Array, Z: Array, Y: Array, model_config: Mapping[str, Any]
    ) -> Weights:
        started = time.perf_counter()
        states = States.of(X, U, Z, Y)
        kappa = kappa_of(model_config) if self.well_pose else None
        self.report = SolveReport(type(self).__name__)
        A, B = self._block("AB", states, states.Z, kappa, started)
        started = time.perf_counter()
        if self.regen_states:
            states = replace(states, X=regenerated(A, B, states.U, model_config))
        C, D = self._block("CD", states, states.Y, None, started)
        self.report.warn_of_shortfalls()
        return A, B, C, D

    def _block(
        self, block: str, states: States, target: Array, kappa: float | None, started: float
    ) -> tuple[Array, Array]:
        n = len(states.X)
        strength = self.lambda_z if block == "AB" else self.lambda_y
        penalty = Penalty.of(strength, self.l1_ratio, self.elastic_net)
        data = np.concatenate([states.X, states.U]).astype(np.float64).T
        tasks = [
            _Task(
                first,
                np.asarray(target[first : first + self.num_row], np.float64),
                n,
                kappa,
                penalty,
                self.regularized,
                self.accuracy,
            )
            for first in range(0, len(target), self.num_row)
        ]
        v = np.zeros((len(target), data.shape[1]))
        iterations = np.zeros(len(target), np.int64)
        accurate = np.zeros(len(target), np.bool_)
        for task, (answer, count, status) in zip(tasks, self._answers(data, tasks), strict=True):
            rows = slice(task.first, task.first + len(task.target))
            v[rows], iterations[rows], accurate[rows] = answer, count, status == "optimal"
            if self.on_progress is not None and (
                rows.stop >= len(v) or not rows.stop % self.batch_size
            ):
                self.on_progress(SolveProgress(block, len(v), rows.stop, count, float("nan")))
        left, right = drop_small(v[:, :n], self.tol), drop_small(v[:, n:], self.tol)
        if kappa is not None:
            left = within_ball(left, kappa)
        objective = objectives(left, right, states.X, states.U, target, penalty)
        assert self.report is not None
        if not accurate.all():
            self.report.falls_short(
                f"Clarabel did not reach its tolerance of {self.accuracy or 1e-8:g} in "
                f"{int((~accurate).sum())} of {len(v)} rows of [{block[0]} {block[1]}]"
            )
        self.report.blocks[block] = BlockReport(
            objective, None, None, iterations, time.perf_counter() - started
        )
        return left, right

    def _answers(self, data: Array, tasks: list[_Task]) -> Iterator[tuple[Array, int, str]]:
        """Each task's answer in order, from worker processes where there is work for several."""
        workers = min(self.num_processes, os.cpu_count() or 1, len(tasks))
        if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
            _receive(data)
            yield from map(_solve, tasks)
            return
        # Forked: spawned workers would import the user's script again.
        context = multiprocessing.get_context("fork")
        step = max(1, self.batch_size // self.num_row)
        _receive(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This process", DeprecationWarning)
            with ProcessPoolExecutor(workers, context) as pool:
                for first in range(0, len(tasks), step):
                    yield from pool.map(_solve, tasks[first : first + step])


_data: Array = np.zeros((0, 0))


def _receive(data: Array) -> None:
    """Put M (m, D) where `_solve` finds it: forked workers inherit it instead of copying."""
    global _data
    _data = data


def _solve(task: _Task) -> tuple[Array, int, str]:
    """The rows' answers (rows, D), the number of interior-point iterations, and CVXPY's status."""
    import cvxpy as cp

    rows, n = len(task.target), task.states
    w = cp.Variable((_data.shape[1], rows))
    size, constraints = cp.sum(cp.abs(w)), []
    cost = task.penalty.l1 * size
    if task.penalty.l2:
        cost = cost + 0.5 * task.penalty.l2 * cp.sum_squares(w)
    if task.regularized:
        cost = cost + 0.5 * cp.sum_squares(task.target.T - _data @ w)
    else:
        constraints.append(_data @ w == task.target.T)
    if task.kappa is not None and n:
        constraints.append(cp.norm(w[:n], 1, axis=0) <= task.kappa)
    problem = cp.Problem(cp.Minimize(cost), constraints)
    options: dict[str, Any] = {}
    if task.accuracy is not None:
        options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), task.accuracy)
    where = f"rows {task.first} to {task.first + rows - 1}" if rows > 1 else f"row {task.first}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate")
            problem.solve(solver=cp.CLARABEL, **options)
    except cp.error.SolverError as error:
        raise RuntimeError(f"Clarabel could not solve {where}: {error}") from error
    if not task.regularized and problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
        bound = "" if task.kappa is None else f" with ‖A‖∞ ≤ {task.kappa:g}"
        raise InfeasibleMatch(
            f"no weights match the states of {where} exactly{bound}: use regularized=True, fewer "
            f"samples than the {_data.shape[0]} given, or scale the network's weights down"
        )
    if w.value is None:
        size = max(float(np.abs(part).max(initial=0.0)) for part in (_data, task.target))
        raise RuntimeError(
            f"Clarabel ended {where} with status {problem.status} and no weights: bring the "
            f"states, of up to {size:.1e}, nearer to 1, or use ADMMSolver"
        )
    return w.value.T, int(problem.solver_stats.num_iters or 0), problem.status
