"""Zeros that the proof of a row still covers."""

from __future__ import annotations

import numpy as np
import torch
from reference import optimum

from idl_core.sim.solvers.problem.compressed_data import compress
from idl_core.sim.solvers.problem.incumbents import Incumbents
from idl_core.sim.solvers.problem.pruning import prune
from idl_core.sim.solvers.problem.row_problem import RowProblem


def test_small_weights_go_and_no_row_leaves_its_gap() -> None:
    rng = np.random.default_rng(0)
    M = torch.from_numpy(rng.normal(size=(50, 12)))
    w = np.where(rng.random((4, 12)) < 0.4, rng.normal(size=(4, 12)), 0.0)
    z = torch.from_numpy(w) @ M.T
    rows = RowProblem(*compress(M, z), 0, 0.0, 1e-3, 0.0)
    best = Incumbents(rows)
    index = torch.arange(4)
    answer = torch.from_numpy(w + 1e-7 * rng.normal(size=w.shape))
    best.consider(index, answer, rows.residual(answer))
    exact = torch.from_numpy(optimum(M[:, :0].T.numpy(), M.T.numpy(), z.numpy(), 1e-3, 0.0, None))
    best.bound = exact - 1e-6 * exact
    before = best.objective.clone()
    assert (best.relative_gap() <= 1e-2).all()

    prune(best, 1e-2)

    assert ((best.v == 0).numpy() >= (w == 0)).all()
    assert ((best.v != 0).numpy() == (w != 0)).mean() > 0.9
    assert (best.objective - before <= 0.1 * 1e-2 * best.objective).all()
    assert (best.relative_gap() <= 1e-2).all()
    torch.testing.assert_close(best.objective, rows.objective(best.v, rows.residual(best.v)))


def test_a_row_that_is_not_done_is_left_alone() -> None:
    M = torch.eye(3, dtype=torch.float64)
    rows = RowProblem(*compress(M, torch.ones(1, 3).double()), 0, 0.0, 0.1, 0.0)
    best = Incumbents(rows)
    answer = torch.tensor([[0.5, 1e-9, 0.2]], dtype=torch.float64)
    best.consider(torch.arange(1), answer, rows.residual(answer))
    prune(best, 1e-5)
    assert torch.equal(best.v, answer)
