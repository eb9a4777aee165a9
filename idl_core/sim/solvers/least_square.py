"""Ordinary least squares: fast, and nothing keeps ‖A‖∞ below 1."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from idl_core.sim.regenerated_states import regenerated
from idl_core.sim.solvers.base import Array, BaseSolver, States, Weights, drop_small
from idl_core.sim.solvers.problem.penalty import Penalty, objectives
from idl_core.sim.solvers.problem.report import BlockReport, SolveReport


def least_squares(X: Array, U: Array, target: Array, tol: float) -> tuple[Array, Array]:
    """The [left right] of least norm with least ‖target - left X - right U‖_F, small ones 0."""
    data = np.concatenate([X, U]).astype(np.float64).T
    w, *_ = np.linalg.lstsq(data, np.asarray(target, np.float64).T, rcond=None)
    w = drop_small(w.T, tol)
    return w[:, : len(X)], w[:, len(X) :]


def well_posedness_note(A: Array) -> str:
    """One sentence: whether ‖A‖∞ < 1."""
    norm = float(np.abs(A).sum(1).max(initial=0.0))
    if norm < 1:
        return f"‖A‖∞ = {norm:.4g} < 1: well-posed"
    return (
        f"‖A‖∞ = {norm:.4g} is not below 1: X = φ(AX + BU) may have no solution or several; SIM "
        "uses A as it is, and to_implicit_model refuses it"
    )


class LeastSquareSolver(BaseSolver):
    """`numpy.linalg.lstsq` on both problems, without penalty and without the bound on ‖A‖∞.

    The report's first note says whether ‖A‖∞ < 1 came out.

    Args:
        regen_states: fit C and D to the equilibrium states of the A and B found.
        tol: magnitudes up to which weights are set to zero afterwards.
    """

    def __init__(self, regen_states: bool = False, tol: float = 1e-6) -> None:
        self.regen_states, self.tol = regen_states, tol

    def solve(
        self, X: Array, U: Array, Z: Array, Y: Array, model_config: Mapping[str, Any]
    ) -> Weights:
        started = time.perf_counter()
        states = States.of(X, U, Z, Y)
        self.report = SolveReport(type(self).__name__)
        A, B = self._block("AB", states, states.Z, started)
        started = time.perf_counter()
        self.report.notes.append(well_posedness_note(A))
        if self.regen_states:
            states = replace(states, X=regenerated(A, B, states.U, model_config))
        C, D = self._block("CD", states, states.Y, started)
        return A, B, C, D

    def _block(
        self, block: str, states: States, target: Array, started: float
    ) -> tuple[Array, Array]:
        left, right = least_squares(states.X, states.U, target, self.tol)
        objective = objectives(left, right, states.X, states.U, target, Penalty(0.0, 0.0))
        assert self.report is not None
        self.report.blocks[block] = BlockReport(
            objective, None, None, np.ones(len(left), np.int64), time.perf_counter() - started
        )
        return left, right
