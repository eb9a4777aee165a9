"""torchidl's solvers on the same states, quietly, with their times."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sim_states import KAPPA, Problem

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class PeerAnswer:
    """Weights of the rows that were solved, and seconds for all rows, extrapolated if not all."""

    weights: tuple[Array, Array, Array, Array]
    state_rows: Sequence[int]
    output_rows: Sequence[int]
    seconds: float
    measured: float


def peer_cvx(problem: Problem, state_rows: Sequence[int], output_rows: Sequence[int]) -> PeerAnswer:
    """torchidl's CVXSolver (MOSEK absent: Clarabel) with a process for each of two cores."""
    from torchidl.sim.solvers import CVXSolver

    X, U, Z, Y = problem.arrays()
    n, _, q, _ = problem.sizes
    seconds, pairs = [], []
    for target, is_output in ((Z[state_rows], False), (Y[output_rows], True)):
        solver = CVXSolver(num_processes=2)
        blocks, views = _shared(X, U)
        started = time.perf_counter()
        with _silence():
            pair = solver.parallel_solve_matrix(
                *blocks, target, is_output, (n, X.shape[1], len(U), q), KAPPA
            )
        seconds.append(time.perf_counter() - started)
        pairs.append(tuple(part.toarray() for part in pair))
        del views
        for block in blocks:
            block.close()
            block.unlink()
    whole = seconds[0] * n / len(state_rows) + seconds[1] * q / len(output_rows)
    return PeerAnswer((*pairs[0], *pairs[1]), state_rows, output_rows, whole, sum(seconds))


def _shared(*arrays: Array) -> tuple[list[Any], list[Array]]:
    from torchidl.sim.solvers.cvx import create_shared_memory_block

    blocks, views = create_shared_memory_block([np.ascontiguousarray(a) for a in arrays])
    return blocks, views


def peer_admm(problem: Problem) -> PeerAnswer:
    """torchidl's ADMMSolver with its defaults."""
    from torchidl.sim.solvers import ADMMSolver

    config = {"kappa": KAPPA, "device": "cpu", "atol": 1e-6, "activation_fn": None}
    started = time.perf_counter()
    with _silence():
        weights = ADMMSolver().solve(*problem.arrays(), config)
    seconds = time.perf_counter() - started
    n, _, q, _ = problem.sizes
    return PeerAnswer(weights, range(n), range(q), seconds, seconds)


@contextlib.contextmanager
def _silence() -> Any:
    """It writes a line an iteration."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
