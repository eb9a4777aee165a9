"""Factors of matrices that rounding has made indefinite."""

from __future__ import annotations

import torch

from idl_core.sim.solvers.problem.cholesky import cholesky


def test_what_rounding_has_made_indefinite_has_a_factor_to_rounding() -> None:
    """Columns twice, and of sizes that differ by a hundred million."""
    generator = torch.Generator().manual_seed(0)
    M = torch.randn(3, 20, 6, dtype=torch.float64, generator=generator)
    M[:, :, 3:] = M[:, :, :3]
    lengths = torch.logspace(-4, 4, 6, dtype=torch.float64)
    K = (M * lengths).mT @ (M * lengths)
    _, failed = torch.linalg.cholesky_ex(K)
    assert bool(failed.any())
    factor = cholesky(K)
    torch.testing.assert_close((factor @ factor.mT) / lengths / lengths[:, None], M.mT @ M)


def test_one_that_has_none_leaves_the_others_alone() -> None:
    K = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    K[1, 2, 2] = torch.nan
    factor = cholesky(K)
    assert torch.equal(factor[[0, 2]], K[[0, 2]])
    assert not bool(factor[1].isfinite().any())
