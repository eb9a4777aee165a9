"""Compression by QR, and the columns that presolve leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import optimum

from idl_core.sim.solvers.interior_point.block import BlockSolver
from idl_core.sim.solvers.interior_point.solve import Limits
from idl_core.sim.solvers.problem.compressed_data import compress
from idl_core.sim.solvers.problem.penalty import Penalty
from idl_core.sim.solvers.problem.presolve import presolved


@pytest.mark.parametrize("samples", [4, 9, 300])
def test_compressed_data_give_the_same_misfits(samples: int) -> None:
    rng = np.random.default_rng(0)
    M, z = rng.normal(size=(samples, 9)), rng.normal(size=(3, samples))
    w = rng.normal(size=(3, 9))
    data, targets = compress(torch.from_numpy(M), torch.from_numpy(z))
    assert data.factor.shape == (min(samples, 9), 9)
    nu = targets.z.numpy() - w @ data.factor.numpy().T
    misfit = (nu**2).sum(1) + targets.rest.numpy()
    np.testing.assert_allclose(misfit, ((z - w @ M.T) ** 2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(nu @ data.factor.numpy(), (z - w @ M.T) @ M, atol=1e-11)
    np.testing.assert_allclose(data.lengths, np.linalg.norm(M, axis=0))


def columns() -> torch.Tensor:
    """Ten columns, of which 0 to 4 are of a: copies within a, within b and across."""
    rng = np.random.default_rng(1)
    M = rng.normal(size=(50, 10))
    M[:, 1] = 0.5 * M[:, 0]  # of a, shorter
    M[:, 2] = -M[:, 7]  # of a and of b, as long
    M[:, 8] = 2 * M[:, 3]  # of b, longer than that of a
    M[:, 9] = 0.1 * M[:, 4]  # of b, shorter than that of a: both are needed
    M[:, 6] = -3 * M[:, 5]  # of b, longer
    return torch.from_numpy(M)


def test_of_parallel_columns_the_longest_stays() -> None:
    M = columns()
    data, _ = compress(M, M[:, :1].T.contiguous())
    kept = presolved(data, 5, 0.9, Penalty(0.1, 0.0))[1]
    assert kept.tolist() == [0, 4, 6, 7, 8, 9]
    assert presolved(data, 5, 0.0, Penalty(0.1, 0.0))[1].tolist() == [6, 7, 8, 9]
    # Without a ball all columns are b's.
    assert presolved(data, 5, None, Penalty(0.1, 0.0))[1].tolist() == [0, 2, 4, 6, 8]
    assert len(presolved(data, 5, 0.9, Penalty(0.1, 0.1))[1]) == 10


@pytest.mark.parametrize("kappa", [0.05, 0.9, None])
def test_the_optimum_is_that_of_all_columns(kappa: float | None) -> None:
    M, rng = columns(), np.random.default_rng(2)
    z = torch.from_numpy(rng.normal(size=(4, 10))) @ M.T + torch.from_numpy(
        rng.normal(size=(4, 50))
    )
    data, targets = compress(M, z)
    found = BlockSolver(data, 5, kappa, Penalty(0.1, 0.0)).solve(targets, Limits(1e-9, 60))
    exact = optimum(M[:, :5].T.numpy(), M[:, 5:].T.numpy(), z.numpy(), 0.1, 0.0, kappa)
    np.testing.assert_allclose(found.objective, exact, rtol=1e-8)
    assert (found.gap.numpy() >= found.objective.numpy() - exact - 1e-9 * exact).all()


def test_columns_that_differ_by_more_than_rounding_both_stay() -> None:
    rng = np.random.default_rng(3)
    M = torch.from_numpy(rng.normal(size=(50, 4)))
    M[:, 3] = M[:, 2] + 1e-11 * torch.from_numpy(rng.normal(size=50))
    data, _ = compress(M, M[:, :1].T.contiguous())
    assert len(presolved(data, 0, None, Penalty(0.1, 0.0))[1]) == 4
