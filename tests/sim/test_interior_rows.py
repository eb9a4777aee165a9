"""Rows that the data leave nearly free in a few directions: an interior-point method there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import optimum

from idl_core.sim.solvers.alternating_direction.loop import ADMMSettings, solve_rows
from idl_core.sim.solvers.interior_point.low_curvature_subspace import LowCurvatureSubspace
from idl_core.sim.solvers.interior_point.row_space_program import RowSpace
from idl_core.sim.solvers.interior_point.solve import solve_within
from idl_core.sim.solvers.interior_point.weighted_products import WeightedProducts
from idl_core.sim.solvers.problem.gram import Gram
from idl_core.sim.solvers.problem.incumbents import Incumbents
from idl_core.sim.solvers.problem.row_problem import RowProblem

D, BALL, COPIES, L1 = 40, 15, 8, 1e-4


def nearly_collinear(m: int) -> torch.Tensor:
    """M (m, D) whose last columns are copies of earlier ones but for 1e-3."""
    rng = np.random.default_rng(0)
    M = rng.normal(size=(m, D))
    M[:, -COPIES:] = M[:, :COPIES] + 1e-3 * rng.normal(size=(m, COPIES))
    return torch.from_numpy(M)


@pytest.mark.parametrize("l2", [0.0, 2e-4])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("ball", [BALL, 0])
def test_nearly_collinear_columns_are_solved_without_an_iteration_of_admm(
    ball: int, noise: float, l2: float
) -> None:
    M = nearly_collinear(120)
    rng = np.random.default_rng(1)
    # The columns that have copies, so that shares between the two are what the penalty decides.
    w = np.where(np.arange(D) < COPIES, 0.03, 0.0) * rng.normal(size=(5, D))
    z = torch.from_numpy(w) @ M.T + noise * torch.from_numpy(rng.normal(size=(5, 120)))
    rows = _rows(M, z, ball, l2)
    space = LowCurvatureSubspace.of(rows, free=0)
    assert space is not None
    assert space.N.shape == (D, COPIES)

    best = Incumbents(rows)
    solve_within(best, torch.arange(5), space, 1e-5)

    # Along the strong directions the answer is of first order in λ: what ‖Mᵀν‖² ≤ λ²D leaves.
    _check(best, M, z, L1**2 * D * float(space.inverse.max()))


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_a_ball_that_binds_is_no_harder(size: float) -> None:
    """Its multiplier may be of any size beside λ; all of a is free, and b follows."""
    M, rng = nearly_collinear(120), np.random.default_rng(2)
    M[:, -1] = M[:, BALL] + 1e-3 * torch.from_numpy(rng.normal(size=120))  # within b, too
    z = torch.from_numpy(size * rng.normal(size=(6, D))) @ M.T
    rows = _rows(M, z, BALL, 0.0)
    whole = LowCurvatureSubspace.of(rows, free=0)
    lifted = LowCurvatureSubspace.of(rows, free=BALL)
    assert whole is not None
    assert lifted is not None
    assert lifted.N.shape == (D, BALL + 1)
    K = M.T @ M
    assert float((lifted.strong.T @ (K @ lifted.N)[BALL:]).abs().max()) < 1e-9 * float(K.max())

    best = Incumbents(rows)
    solve_within(best, torch.arange(6), lifted, 1e-5)

    assert (best.v[:, :BALL].abs().sum(1) > 0.299).any()
    _check(best, M, z, L1**2 * D * float(lifted.inverse.max()))
    # Directions of a that the data see well cannot reach the ball if they count as pinned.
    before = Incumbents(rows)
    solve_within(before, torch.arange(6), whole, 1e-5)
    assert (before.gap() >= best.gap()).all()


def _rows(M: torch.Tensor, z: torch.Tensor, ball: int, l2: float) -> RowProblem:
    gram = Gram(matrix=M.T @ M, samples=len(M))
    return RowProblem(gram, z @ M, (z * z).sum(1), gram.diagonal().sqrt(), ball, 0.3, L1, l2)


def _check(best: Incumbents, M: torch.Tensor, z: torch.Tensor, second_order: float) -> None:
    """Against the reference: within 1e-5, the gap covers the distance, and a is in the ball."""
    rows = best.problem
    X, U = M[:, : rows.ball].T.numpy(), M[:, rows.ball :].T.numpy()
    exact = optimum(X, U, z.numpy(), rows.l1, rows.l2, 0.3 if rows.ball else None)
    scale = np.maximum(exact, 0.5e-6 * rows.zz.numpy())
    assert (best.gap().numpy() <= 1e-5 * scale + second_order).all()
    assert (best.objective.numpy() - exact <= best.gap().numpy() + 1e-9 * scale).all()
    assert (best.v[:, : rows.ball].abs().sum(1) <= 0.3 * (1 + 1e-12)).all()


def test_a_row_that_is_done_where_it_starts_takes_no_step() -> None:
    """As where λ is small beside what no answer can fit: least squares is close enough."""
    M = nearly_collinear(120)
    z = (M @ torch.linspace(-0.1, 0.1, D, dtype=torch.float64))[None]
    noise = torch.from_numpy(np.random.default_rng(4).normal(size=120))
    rows = replace(_rows(M, torch.cat([z + noise, z]), 0, 0.0), l1=1e-6)
    space = RowSpace.of(rows)
    assert space is not None
    best = Incumbents(rows)
    steps = solve_within(best, torch.arange(2), space, 0.5)
    assert steps[0] == 0
    assert steps[1] > 0
    assert (best.relative_gap() <= 0.5).all()


def test_there_is_no_space_where_it_would_not_help() -> None:
    M = nearly_collinear(120)
    rows = _rows(M, M[:, :2].T @ M @ M.T, 0, 0.0)
    assert LowCurvatureSubspace.of(rows, free=0) is not None
    assert LowCurvatureSubspace.of(replace(rows, l1=1e-12), free=0) is None  # no curvature is low
    assert LowCurvatureSubspace.of(replace(rows, l1=0.0), free=0) is None
    assert LowCurvatureSubspace.of(replace(rows, gram=Gram(data=M[:10])), free=0) is None
    assert rows.gram.matrix is not None
    assert (
        LowCurvatureSubspace.of(replace(rows, gram=Gram(matrix=rows.gram.matrix.float())), free=0)
        is None
    )


def test_rows_that_are_done_pay_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eigenvectors cost as much as a few factors."""

    def refuse(problem: RowProblem, free: int) -> None:
        raise AssertionError("nothing here needs the space")

    monkeypatch.setattr(LowCurvatureSubspace, "of", refuse)
    M = nearly_collinear(120)
    z = (M @ torch.linspace(-0.1, 0.1, D, dtype=torch.float64))[None]
    solve_rows(_rows(M, z, 0, 0.0), ADMMSettings(10.0, 120, 1.6, 1))


@pytest.mark.parametrize(("D", "d", "free"), [(30, 7, 0), (30, 7, 3), (2000, 200, 20)])
def test_weighted_products(D: int, d: int, free: int) -> None:
    """Against the definition, with the pairs of columns kept and without."""
    torch.manual_seed(0)
    N = torch.randn(D, d, dtype=torch.float64)
    N[:free] = torch.eye(D, dtype=torch.float64)[:free, :d]
    e = torch.rand(3, D, dtype=torch.float64)
    e[1:, -1] = 1e9  # of unlike size, so that float64 is needed
    products = WeightedProducts(N, free)
    assert (products.pairs is None) == (D == 2000)
    exact = torch.einsum("ij,ki,il->kjl", N, e, N)
    lower = products.lower(e)
    assert torch.allclose(lower[1:].tril(), exact[1:].tril(), rtol=1e-11)
    assert torch.allclose(lower[:1].tril(), exact[:1].tril(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("strength", [1e-6, 1.0])
@pytest.mark.parametrize("ball", [BALL, 0])
@pytest.mark.parametrize("samples", [1, 12, 60])
def test_rows_are_solved_in_the_directions_that_the_data_see(
    samples: int, ball: int, strength: float
) -> None:
    """Fewer samples than columns or more, some of them twice, for any λ."""
    M = nearly_collinear(samples)
    M = torch.cat([M, M[: samples // 3]])
    rng = np.random.default_rng(3)
    z = torch.from_numpy(0.1 * rng.normal(size=(4, D))) @ M.T
    z[2:] += 0.1 * torch.from_numpy(rng.normal(size=(2, len(M))))  # not to be fitted
    rows = replace(_rows(M, z, ball, 0.0), l1=strength, gram=Gram.of(M))
    space = RowSpace.of(rows)
    assert space is not None
    assert space.V.shape == (D, min(samples, D))

    best = Incumbents(rows)
    steps = solve_within(best, torch.arange(4), space, 1e-5)

    assert int(steps.max()) <= 25
    _check(best, M, z, 1e-15 * float(rows.zz.max()))
