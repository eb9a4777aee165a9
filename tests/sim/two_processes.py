"""The whole grid by the solver of several processes, in one start of two of them."""

from __future__ import annotations

import functools
import pickle
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from problems import CASES, REGENERATED, Case

from idl.sim.solvers import ADMMMultiGPUSolver
from idl_core.sim.solvers.base import Weights
from idl_core.workers import run_workers

Solved = tuple[ADMMMultiGPUSolver, Weights]


def multi_process(case: Case) -> ADMMMultiGPUSolver:
    """The solver; batches of three rows, so that each process has some."""
    return ADMMMultiGPUSolver(
        [], 2, batch_feature_size=3, lambda_y=case.strength, lambda_z=case.strength
    )


def main(folder: str) -> None:
    """What each process runs: it joins the other's group."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    found = []
    for case in (*CASES, REGENERATED):
        solver = multi_process(case)
        solver.regen_states = case is REGENERATED
        found.append((solver, solver.solve(*case.states(), case.config)))
    Path(folder, f"{dist.get_rank()}.pickle").write_bytes(pickle.dumps(found))


@functools.cache
def _of_each_rank() -> list[list[Solved]]:
    with tempfile.TemporaryDirectory() as folder:
        run_workers("two_processes", folder, 2, Path(folder))
        return [pickle.loads(Path(folder, f"{rank}.pickle").read_bytes()) for rank in range(2)]


def solved_by_two(case: Case, rank: int = 0) -> Solved:
    """The solver after its solve, and the weights that a process has."""
    return _of_each_rank()[rank][(*CASES, REGENERATED).index(case)]
