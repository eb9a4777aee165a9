"""SIM's solvers against torchidl's and against Clarabel, and the equilibrium of what they find.

    python benchmarks/sim.py [--data FOLDER] [--only PART ...] [--peer-rows N]

Parts: `exact` (objective of every row against Clarabel at 1e-12, and whether the gap covers it),
`time` (against torchidl's CVXSolver and ADMMSolver on the same states), `maps` (applications of the
map in evaluation against Picard iteration), `large` (D = 4,000), `ranks` (two processes against
one there). With --peer-rows torchidl's CVXSolver solves only that many rows, evenly spaced, and its
time is extrapolated; the table says so. With --rank-rows the two processes solve only that many.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mnist_digits import absent_message, find_raw_folder
from peers import require
from sim_peer import PeerAnswer, peer_admm, peer_cvx
from sim_states import KAPPA, SAMPLES, STRENGTH, Problem, large_problem, mnist_problem
from timing import conditions

from idl.sim import SIM
from idl.sim.solvers import ADMMMultiGPUSolver, ADMMSolver, BaseSolver, CVXSolver
from idl_core.equilibrium import Picard
from idl_core.sim.equilibrium_states import equilibrium_states
from idl_core.sim.solvers.problem.penalty import Penalty, objectives

Array = np.ndarray[Any, Any]
CONFIG = {"kappa": KAPPA, "device": "cpu"}
PARTS = ("time", "exact", "maps", "large", "ranks")


def ours(problem: Problem, **options: Any) -> tuple[SIM, ADMMSolver]:
    """Our solver on the states, and the model it makes."""
    solver = ADMMSolver(STRENGTH, STRENGTH, **options)
    return SIM(dtype=torch.float64).fit(solver, problem.states), solver


def objective_of(problem: Problem, weights: tuple[Array, ...]) -> float:
    """Sum over all rows of both blocks."""
    X, U, Z, Y = problem.arrays()
    A, B, C, D = (np.asarray(w, np.float64) for w in weights)
    penalty = Penalty(STRENGTH, 0.0)
    return float(
        objectives(A, B, X, U, Z, penalty).sum() + objectives(C, D, X, U, Y, penalty).sum()
    )


def time_part(problem: Problem, rows: int | None) -> None:
    """Our time and both of the peer's, objectives, feasibility, accuracy."""
    n, _, q, _ = problem.sizes
    sim, solver = ours(problem)
    assert solver.report is not None
    report = solver.report
    accuracy = sim.evaluate(problem.test) if problem.test is not None else float("nan")
    print(f"teacher's test accuracy {problem.teacher_accuracy:.4f}")
    print(
        f"ours: {report.seconds:.2f} s, objective {report.objective:.6f}, worst relative gap "
        f"{report.worst_relative_gap:.1e}, accuracy {accuracy:.4f}; {report.notes}"
    )
    slow = peer_admm(problem)
    norm = float(np.abs(slow.weights[0]).sum(1).max())
    print(
        f"torchidl ADMMSolver: {slow.seconds:.1f} s = {slow.seconds / report.seconds:.0f}x, "
        f"objective {objective_of(problem, slow.weights):.6f}, ‖A‖∞ - κ = {norm - KAPPA:.1e} "
        f"(ours {np.abs(sim.weights['A'].numpy()).sum(1).max() - KAPPA:.1e})"  # type: ignore[union-attr]
    )
    state_rows = _spaced(n, rows)
    output_rows = _spaced(q, None if rows is None else max(2, rows // 4))
    cvx = peer_cvx(problem, state_rows, output_rows)
    _print_cvx(problem, cvx, report.seconds, rows is not None)


def _print_cvx(problem: Problem, cvx: PeerAnswer, seconds: float, extrapolated: bool) -> None:
    how = f"extrapolated from {cvx.measured:.0f} s of " if extrapolated else ""
    print(
        f"torchidl CVXSolver: {cvx.seconds:.0f} s ({how}{len(cvx.state_rows)} + "
        f"{len(cvx.output_rows)} rows) = {cvx.seconds / seconds:.0f}x"
    )
    if not extrapolated and problem.test is not None:
        peer = SIM(dtype=torch.float64)
        peer.weights = dict(zip("ABCD", map(torch.from_numpy, cvx.weights), strict=True))
        print(
            f"  objective {objective_of(problem, cvx.weights):.6f}, "
            f"accuracy {peer.evaluate(problem.test):.4f} by our equilibrium"
        )


def _spaced(count: int, wanted: int | None) -> list[int]:
    if wanted is None or wanted >= count:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, wanted)]


def exact_part(problem: Problem, rows: int | None) -> None:
    """Every row against Clarabel at 1e-12."""
    X, U, Z, Y = problem.arrays()
    _, solver = ours(problem)
    assert solver.report is not None
    for block, target in (("AB", Z), ("CD", Y)):
        chosen = _spaced(len(target), rows)
        mine = solver.report.blocks[block]
        assert mine.gap is not None
        reference: BaseSolver = CVXSolver(
            lambda_y=STRENGTH, lambda_z=STRENGTH, num_processes=2, tol=0.0, accuracy=1e-12
        )
        objective, scale = _clarabel_objective(reference, block, X, U, target[chosen])
        excess = mine.objective[chosen] - objective
        print(
            f"[{block[0]} {block[1]}], {len(chosen)} rows: objective above Clarabel's by at most "
            f"{(excess / scale).max():.1e} of max(objective, 1e-6 ½‖z‖²); the gap covers it in "
            f"{int((mine.gap[chosen] >= excess - 1e-9 * scale).sum())} rows; "
            f"largest relative gap {(mine.gap[chosen] / scale).max():.1e}"
        )


def _clarabel_objective(
    solver: Any, block: str, X: Array, U: Array, target: Array
) -> tuple[Array, Array]:
    """Objectives of the rows by our CVXSolver, and what they are measured relative to."""
    from idl_core.sim.solvers.base import States
    from idl_core.sim.solvers.problem.report import SolveReport

    solver.report = SolveReport("CVXSolver")
    # One block of some rows only: X in place of Z keeps the checks of shapes content.
    states, kappa = States(X, U, X, target), KAPPA if block == "AB" else None
    solver._block(block, states, target, kappa, time.perf_counter())
    found = solver.report.blocks[block].objective
    half = 0.5 * (np.asarray(target, np.float64) ** 2).sum(1)
    return found, np.maximum(found, 1e-6 * half)


def maps_part(problem: Problem) -> None:
    """Applications of the map to 1e-8, ours against Picard iteration."""
    sim, _ = ours(problem)
    assert problem.test is not None
    inputs = torch.cat([batch[0] for batch in problem.test]).double()
    A, B = sim.weights["A"], sim.weights["B"]
    assert A is not None
    assert B is not None
    quick = equilibrium_states(A, B, inputs, torch.relu, 1e-8)
    shift = inputs @ B.T
    slow = Picard(1e-8, 20_000).solve(
        lambda x, out: torch.relu(torch.addmm(shift, x, A.T)), torch.zeros_like(shift)
    )
    few, many = int(quick.iterations.max()), int(slow.iterations.max())
    apart = float((quick.value - slow.value).abs().max())
    print(
        f"maps to 1e-8: ours {few}, Picard {many} = {many / few:.1f}x; states differ by {apart:.1e}"
    )


def large_part(problem: Problem, small_seconds: float | None) -> None:
    """D = 4,000 to a gap of 1e-4: time, memory, growth."""
    started = time.perf_counter()
    _, solver = ours(problem, gap_tol=1e-4)
    assert solver.report is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    growth = (1010 / 122) * (problem.columns / 896) ** 3
    print(
        f"D = {problem.columns}, {problem.sizes[0]} rows, m = {problem.sizes[3]}: "
        f"{time.perf_counter() - started:.0f} s, worst relative gap "
        f"{solver.report.worst_relative_gap:.1e}, peak {peak:.1f} GiB; {solver.report.notes}"
    )
    print(f"  predicted growth over D = 896: rows x D³ = {growth:.0f}x", end="")
    if small_seconds is not None:
        print(f"; time measured: {solver.report.seconds / small_seconds:.0f}x", end="")
    print()


def ranks_part(problem: Problem, rows: int | None) -> None:
    """One process against two, a thread each; of some rows only, if so asked."""
    seconds, answers = [], []
    X, U, Z, Y = problem.arrays()
    n, _, q, _ = problem.sizes
    # The others are zero, which takes no work; what all rows share stays whole.
    Z, Y = (_only(Z, _spaced(n, rows)), _only(Y, _spaced(q, rows and 2)))
    for devices in (1, 2):
        solver = ADMMMultiGPUSolver([], devices, lambda_y=STRENGTH, lambda_z=STRENGTH, gap_tol=1e-4)
        started = time.perf_counter()
        answers.append(solver.solve(X, U, Z, Y, CONFIG))
        seconds.append(time.perf_counter() - started)
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*answers, strict=True))
    print(
        f"D = {problem.columns}, {rows or n} rows: one process {seconds[0]:.0f} s, "
        f"two {seconds[1]:.0f} s = {seconds[0] / seconds[1]:.2f}x; answers differ by {apart:.1e}"
    )


def _only(target: Array, rows: list[int]) -> Array:
    """The same with all other rows zero."""
    kept = np.zeros_like(target)
    kept[rows] = target[rows]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with the t10k files of MNIST")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--peer-rows", type=int, help="rows of torchidl's CVXSolver and Clarabel")
    parser.add_argument("--rank-rows", type=int, help="rows solved by one and by two processes")
    options = parser.parse_args()
    require("torchidl")
    print(conditions("torchidl", "cvxpy", "clarabel"))
    small_seconds = None
    if {"time", "exact", "maps"} & set(options.only):
        folder = find_raw_folder(options.data)
        if folder is None:
            print(absent_message())
        else:
            problem = mnist_problem(folder)
            print(f"MNIST 784-64-32-16-10, {SAMPLES} samples, λ = {STRENGTH:g}, κ = {KAPPA}")
            if "time" in options.only:
                time_part(problem, options.peer_rows)
            if "exact" in options.only:
                exact_part(problem, options.peer_rows)
            if "maps" in options.only:
                maps_part(problem)
            if "large" in options.only:
                small = ours(problem, gap_tol=1e-4)[1].report
                small_seconds = None if small is None else small.seconds
    if "large" in options.only:
        large_part(large_problem(), small_seconds)
    if "ranks" in options.only:
        ranks_part(large_problem(), options.rank_rows)


if __name__ == "__main__":
    main()
