"""SIM's solver over a family of problems that differ in kind: worst and median, proved by Clarabel.

    python benchmarks/sim_family.py --data <folder with MNIST/raw and cifar10_jpg_12k.zip>

Each problem is solved as a user would, in float64 to a gap of 1e-5. A sample of its rows is solved
by Clarabel at 1e-10 on QR-compressed data, a harder yardstick than the raw data: "times" is its
seconds a row, without CVXPY's own, times the rows, over ours. Seconds are those of the processor,
of one thread each, so that what else the machine does counts for neither. Everything is seeded.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sim_siblings import SIBLINGS, Sibling, Source
from timing import conditions

from idl.sim.solvers import ADMMSolver

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Outcome:
    """What one problem came to.

    Attributes:
        seconds: of our solve.
        open_rows: rows above the gap, of [A B] and of [C D].
        worst_gap: the largest relative gap.
        excess: the most that a checked row is above Clarabel's, over the scale of gaps.
        uncovered: checked rows whose gap does not cover that.
        times: Clarabel's seconds for all rows over ours.
    """

    name: str
    seconds: float
    open_rows: tuple[int, int]
    worst_gap: float
    excess: float
    uncovered: int
    times: float
    zeros: float


def solved(sibling: Sibling, states: dict[str, Array], checked: dict[str, Any]) -> Outcome:
    """Solve one problem and hold it against Clarabel's rows."""
    solver = ADMMSolver(
        sibling.strength, sibling.strength, sibling.l1_ratio, sibling.elastic_net, **sibling.options
    )
    X, U, Z, Y = (states[key] for key in ("X", "U", "Z", "Y"))
    started = time.process_time()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        A, B, C, D = solver.solve(X, U, Z, Y, {"kappa": sibling.kappa, "device": "cpu"})
    seconds = time.process_time() - started
    assert solver.report is not None
    excess, uncovered, peer, opened, worst = -np.inf, 0, 0.0, [], 0.0
    for block, left in (("AB", A), ("CD", C)):
        found = solver.report.blocks[block]
        assert found.gap is not None
        assert found.relative_gap is not None
        opened.append(int((~(found.relative_gap <= 1e-5)).sum()))
        worst = max(worst, float(found.relative_gap.max(initial=0.0)))
        if block not in checked or not len(checked[block]["rows"]):
            continue
        rows, value, took = (checked[block][key] for key in ("rows", "value", "seconds"))
        half = 0.5 * (np.asarray(Z if block == "AB" else Y, np.float64)[rows] ** 2).sum(1)
        scale = np.maximum(value, 1e-6 * half)
        over = (found.objective[rows] - value) / np.maximum(scale, 1e-300)
        excess = max(excess, float(np.nanmax(over, initial=-np.inf)))
        # Clarabel's own answer may be 1e-9 of the scale above the optimum, or an infeasible bit
        # below it.
        slack = 2e-8 * scale
        uncovered += int((found.gap[rows] < found.objective[rows] - value - slack).sum())
        peer += float(np.nanmean(took)) * len(left)
    zeros = float(np.mean([(w == 0).mean() for w in (A, B, C, D) if w.size]))
    times = peer / seconds if peer else float("nan")
    return Outcome(
        sibling.name, seconds, (opened[0], opened[1]), worst, excess, uncovered, times, zeros
    )


def clarabel(sibling: Sibling, states: dict[str, Array], count: int) -> dict[str, Any]:
    """Objectives and seconds of some rows of both blocks by Clarabel at 1e-10."""
    X, U, Z, Y = (np.asarray(states[key], np.float64) for key in ("X", "U", "Z", "Y"))
    data = np.concatenate([X, U]).T
    found: dict[str, Any] = {}
    for block, target, kappa in (("AB", Z, sibling.kappa), ("CD", Y, None)):
        rows = np.unique(np.linspace(0, len(target) - 1, count if block == "AB" else 2).astype(int))
        matrix, right, rest = compressed(data, target[rows].T)
        values, seconds = [], []
        for z, constant in zip(right.T, rest, strict=True):
            value, took = clarabel_row(matrix, z, len(X), kappa, *sibling.penalties)
            values.append(value + 0.5 * constant)
            seconds.append(took)
        found[block] = {"rows": rows, "value": np.array(values), "seconds": np.array(seconds)}
    return found


def compressed(data: Array, targets: Array) -> tuple[Array, Array, Array]:
    """R, Qᵀz, and what of ‖z‖² is outside of the range of M = QR."""
    if len(data) <= data.shape[1]:
        return data, targets, np.zeros(targets.shape[1])
    q, r = np.linalg.qr(data)
    right = q.T @ targets
    rest = targets - q @ right
    return r, right, (rest**2).sum(0)


def clarabel_row(
    M: Array, z: Array, states: int, kappa: float | None, l1: float, l2: float
) -> tuple[float, float]:
    """Objective and solve seconds of one row; NaN where Clarabel has no answer."""
    import cvxpy as cp

    w = cp.Variable(M.shape[1])
    cost = 0.5 * cp.sum_squares(z - M @ w) + l1 * cp.norm1(w) + 0.5 * l2 * cp.sum_squares(w)
    bound = [] if kappa is None else [cp.norm1(w[:states]) <= kappa]
    problem = cp.Problem(cp.Minimize(cost), bound)
    tight: dict[str, Any] = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
    tight["max_threads"] = 1
    try:
        data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts=tight)
        started = time.process_time()
        solution = chain.solve_via_data(problem, data, False, False, tight)
        took = time.process_time() - started
        problem.unpack_results(solution, chain, inverse)
    except Exception:  # whatever it is, it has no answer
        return float("nan"), float("nan")
    if problem.status != "optimal" or w.value is None:
        return float("nan"), took
    a = w.value[:states]
    size = np.abs(a).sum()
    if kappa is not None and size > kappa:
        w.value[:states] = a * (kappa / size)
    left = z - M @ w.value
    value = 0.5 * left @ left + l1 * np.abs(w.value).sum() + 0.5 * l2 * w.value @ w.value
    return float(value), took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="names of problems, or parts of names")
    parser.add_argument("--rows", type=int, default=4, help="rows of [A B] checked by Clarabel")
    parser.add_argument("--cache", type=Path, help="folder to keep states and Clarabel's rows in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions("cvxpy", "clarabel"), flush=True)
    source = Source(options.data, options.cache)
    outcomes = []
    for sibling in SIBLINGS:
        if options.only and not any(part in sibling.name for part in options.only):
            continue
        states = source.states(sibling)
        checked = source.kept(
            f"clarabel-{options.rows}-{sibling.name}",
            lambda s=sibling, d=states: clarabel(s, d, options.rows),
        )
        outcome = solved(sibling, states, checked)
        outcomes.append(outcome)
        print(
            f"{outcome.name:34s} {outcome.seconds:7.2f} s  open {outcome.open_rows[0]:3d}/"
            f"{outcome.open_rows[1]:<3d} gap {outcome.worst_gap:.1e}  above Clarabel "
            f"{outcome.excess:8.1e}  uncovered {outcome.uncovered}  {outcome.times:6.0f}x"
            f"  zeros {outcome.zeros:.2f}",
            flush=True,
        )
    if not outcomes:
        return
    many = [o.times for o in outcomes if np.isfinite(o.times)]
    print(
        f"{len(outcomes)} problems: open rows {sum(sum(o.open_rows) for o in outcomes)}, worst gap "
        f"{max(o.worst_gap for o in outcomes):.1e}, uncovered "
        f"{sum(o.uncovered for o in outcomes)}; times: median {statistics.median(many):.0f}, worst "
        f"{min(many):.0f}; {sum(o.seconds for o in outcomes):.0f} s"
    )


if __name__ == "__main__":
    main()
