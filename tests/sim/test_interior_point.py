"""The interior-point method on rows that differ in kind, against Clarabel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import optimum

from idl_core.sim.solvers.interior_point.block import BlockSolver, RowAnswers
from idl_core.sim.solvers.interior_point.choice import SystemsChoice
from idl_core.sim.solvers.interior_point.newton_systems import (
    DenseSystems,
    LowCurvatureSystems,
    NewtonSystems,
    RowSpaceSystems,
)
from idl_core.sim.solvers.interior_point.solve import Limits
from idl_core.sim.solvers.interior_point.weighted_products import WeightedProducts
from idl_core.sim.solvers.problem.compressed_data import compress
from idl_core.sim.solvers.problem.penalty import Penalty
from idl_core.sim.solvers.problem.row_problem import RowProblem

D, BALL, COPIES, L1, KAPPA = 40, 15, 8, 1e-4, 0.3


def nearly_collinear(m: int) -> torch.Tensor:
    """M (m, D) whose last columns are copies of earlier ones but for 1e-3."""
    rng = np.random.default_rng(0)
    M = rng.normal(size=(m, D))
    M[:, -COPIES:] = M[:, :COPIES] + 1e-3 * rng.normal(size=(m, COPIES))
    return torch.from_numpy(M)


def check(M: torch.Tensor, z: torch.Tensor, ball: int, penalty: Penalty) -> RowAnswers:
    """Solve, and hold against the reference: within 1e-5, the gap covers the distance, and a is in
    the ball."""
    solver = BlockSolver(compress(M, z)[0], ball, KAPPA if ball else None, penalty)
    found = solver.solve(compress(M, z)[1], Limits(1e-5, 60))
    X, U = M[:, :ball].T.numpy(), M[:, ball:].T.numpy()
    exact = optimum(X, U, z.numpy(), penalty.l1, penalty.l2, KAPPA if ball else None)
    scale = np.maximum(exact, 0.5e-6 * (z * z).sum(1).numpy())
    assert (found.gap.numpy() <= 1e-5 * scale).all()
    assert (found.objective.numpy() - exact <= found.gap.numpy() + 1e-9 * scale).all()
    assert (found.v[:, :ball].abs().sum(1) <= KAPPA).all()
    assert int(found.iterations.max()) <= 30
    return found


@pytest.mark.parametrize("l2", [0.0, 2e-4])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("ball", [BALL, 0])
def test_nearly_collinear_columns(ball: int, noise: float, l2: float) -> None:
    M = nearly_collinear(120)
    rng = np.random.default_rng(1)
    # The columns that have copies, so that shares between the two are what the penalty decides.
    w = np.where(np.arange(D) < COPIES, 0.03, 0.0) * rng.normal(size=(5, D))
    z = torch.from_numpy(w) @ M.T + noise * torch.from_numpy(rng.normal(size=(5, 120)))
    check(M, z, ball, Penalty(L1, l2))


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_a_ball_that_binds_is_no_harder(size: float) -> None:
    """Its multiplier may be of any size beside λ."""
    M, rng = nearly_collinear(120), np.random.default_rng(2)
    M[:, -1] = M[:, BALL] + 1e-3 * torch.from_numpy(rng.normal(size=120))  # within b, too
    z = torch.from_numpy(size * rng.normal(size=(6, D))) @ M.T
    found = check(M, z, BALL, Penalty(L1, 0.0))
    assert (found.v[:, :BALL].abs().sum(1) > 0.999 * KAPPA).any()


@pytest.mark.parametrize("strength", [1e-6, 1.0])
@pytest.mark.parametrize("ball", [BALL, 0])
@pytest.mark.parametrize("samples", [1, 12, 60])
def test_any_number_of_samples(samples: int, ball: int, strength: float) -> None:
    """Fewer samples than columns or more, some of them twice, for any λ."""
    M = nearly_collinear(samples)
    M = torch.cat([M, M[: samples // 3]])
    rng = np.random.default_rng(3)
    z = torch.from_numpy(0.1 * rng.normal(size=(4, D))) @ M.T
    z[2:] += 0.1 * torch.from_numpy(rng.normal(size=(2, len(M))))  # not to be fitted
    check(M, z, ball, Penalty(strength, 0.0))


def test_constant_columns_far_above_the_others() -> None:
    """Curvatures from nothing to 1e7, and a ball that binds: matrices that rounding makes
    indefinite must not end a row."""
    rng = np.random.default_rng(4)
    M = 10.0 ** rng.uniform(-3, 3, size=(1, D)) + 1e-6 * rng.normal(size=(100, D))
    M[:, 5:20] = rng.normal(size=(100, 15))
    z = torch.from_numpy(rng.normal(size=(4, 15)) @ M[:, 5:20].T + 1.0)
    check(torch.from_numpy(M), z, BALL, Penalty(1e-4, 0.0))


def test_a_row_that_is_done_where_it_starts_takes_no_step() -> None:
    M = nearly_collinear(120)
    z = M[:, :2].T.contiguous()
    found = check(M, z, 0, Penalty(1e4, 0.0))
    assert not found.iterations.any()
    assert not found.v.any()


def systems(M: torch.Tensor) -> list[NewtonSystems]:
    data = compress(M, M[:, :1].T.contiguous())[0]
    free = 5
    eigen = torch.linalg.eigh(data.gram[free:, free:])
    return [DenseSystems(data), RowSpaceSystems(data), LowCurvatureSystems(data, free, eigen, 8)]


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("samples", [120, 36])
def test_every_form_solves_newtons_equations(form: int, samples: int) -> None:
    """Against NumPy, with weights of the sizes that an interior-point method comes to."""
    M = nearly_collinear(samples)
    rng = np.random.default_rng(5)
    q = torch.from_numpy(10.0 ** rng.uniform(-6, -1, size=(3, D)))
    q[:, 2:4], q[:, -2:] = 1e5, 1e3
    g = torch.from_numpy(rng.normal(size=(2, 3, D)))
    x, error = systems(M)[form].factored(q).solve(g, 1e-9)
    assert (error <= 1e-8).all()
    for row in range(3):
        matrix = (M.T @ M + torch.diag(q[row])).numpy()
        exact = np.linalg.solve(matrix, g[:, row].numpy().T).T
        np.testing.assert_allclose(x[:, row], exact, atol=1e-7 * np.abs(exact).max())


def test_the_form_follows_the_problem() -> None:
    def form(M: torch.Tensor, l1: float) -> type[NewtonSystems]:
        rows = RowProblem(*compress(M, M[:, :1].T.contiguous()), 0, 0.0, l1, 0.0)
        return type(next(SystemsChoice(rows).of(False)))

    M = nearly_collinear(120)
    assert form(M, 1e-6) is LowCurvatureSystems
    assert form(M, 1.0) is DenseSystems
    assert form(M[:6], 1e-6) is RowSpaceSystems


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
