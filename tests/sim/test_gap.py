"""Every reported gap is at least the true distance to the optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make, with_duplicates
from reference import objective, optimum

from idl.sim.solvers import ADMMSolver
from idl_core.sim.solvers.problem.column_span import ColumnSpan

Array = np.ndarray[Any, Any]

# Few iterations: it is the gaps that are tested, not that they close.
pytestmark = pytest.mark.filterwarnings("ignore:ADMMSolver fell short")


def columns(seed: int, samples: int, tiny: float) -> tuple[Array, Array, Array]:
    """X (3, m), U (6, m) with rows of unlike size, twice, and close; Y (2, m)."""
    rng = np.random.default_rng(seed)
    X, U = np.abs(rng.normal(size=(3, samples))), rng.normal(size=(6, samples))
    Y = rng.normal(size=(2, 3)) @ X + rng.normal(size=(2, 6)) @ U
    Y[1] += rng.normal(size=samples)
    U[5] *= tiny
    U[4] = U[3]
    U[2] = U[1] + 1e-2 * U[2]
    return X, U, Y


def least(X: Array, U: Array, target: Array, l2: float) -> Array:
    """(k,) optimal objectives of ridge regression without a ball, by NumPy's least squares of
    columns of unit length."""
    M = np.concatenate([X, U]).T
    M = np.concatenate([M, np.sqrt(l2) * np.eye(M.shape[1])])
    z = np.concatenate([target.T, np.zeros((M.shape[1], len(target)))])
    lengths = np.linalg.norm(M, axis=0)
    w = np.linalg.lstsq(M / lengths, z, rcond=1e-13)[0] / lengths[:, None]
    return objective(X, U, target, w[:3].T, w[3:].T, 0.0, l2)


@pytest.mark.parametrize("tiny", [1.0, 1e-4, 1e-7, 1e-8])
@pytest.mark.parametrize("samples", [5, 12, 200])
def test_without_penalty_columns_of_unlike_size_are_solved(samples: int, tiny: float) -> None:
    X, U, Y = columns(0, samples, tiny)
    solver = ADMMSolver(0.0, 0.0, max_iter=200)
    *_, C, D = solver.solve(X, U, 0 * X, Y, {"kappa": 0.9})
    found = objective(X, U, Y, C, D, 0.0, 0.0)
    assert solver.report is not None
    gap = solver.report.blocks["CD"].gap
    assert gap is not None
    assert (gap >= found - least(X, U, Y, 0.0) - 1e-12 * (Y**2).sum(1)).all()
    assert (gap <= 1e-5 * np.maximum(found, 0.5e-6 * (Y**2).sum(1))).all()


@pytest.mark.parametrize("strength", [1e-14, 1e-9, 1e-3])
@pytest.mark.parametrize("samples", [5, 200])
def test_the_gap_of_a_ridge_hides_no_competitor_however_far(samples: int, strength: float) -> None:
    """The weight of a column of 1e-7 is 1e7: far outside of what the others take."""
    X, U, Y = columns(1, samples, 1e-7)
    solver = ADMMSolver(strength, strength, elastic_net=True, l1_ratio=0.0, max_iter=120)
    *_, C, D = solver.solve(X, U, 0 * X, Y, {"kappa": 0.9})
    found = objective(X, U, Y, C, D, 0.0, strength)
    assert solver.report is not None
    gap = solver.report.blocks["CD"].gap
    assert gap is not None
    assert (gap >= found - least(X, U, Y, strength) - 1e-12 * (Y**2).sum(1)).all()


def test_copies_closer_than_the_gram_matrix_tells_are_no_proof() -> None:
    """What would fit exactly is the difference of two columns, 1e-10 of their length."""
    rng = np.random.default_rng(0)
    U = rng.normal(size=(3, 60))
    Y = rng.normal(size=(1, 60))
    U[2] = U[1] + 1e-10 * Y[0]
    solver = ADMMSolver(0.0, 0.0, max_iter=20)
    X = np.ones((1, 60))
    *_, C, D = solver.solve(X, U, 0 * X, Y, {"kappa": 0.9})
    assert solver.report is not None
    gap = solver.report.blocks["CD"].gap
    assert gap is not None
    # The weights ±1e10 that fit exactly are within rounding of 1e-6.
    assert gap[0] >= objective(X, U, Y, C, D, 0.0, 0.0)[0] - 1e-4


@pytest.mark.parametrize("samples", [6, 40])
def test_span(samples: int) -> None:
    """‖Pν‖ against NumPy's."""
    X, U, _ = columns(2, samples, 1e-6)
    M = torch.from_numpy(np.concatenate([X, U]).T.copy())
    nu = torch.randn(4, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = 3
    c = (nu @ M)[:, first:]
    part = (M / M.norm(dim=0))[:, first:].numpy()
    left, sizes, _ = np.linalg.svd(part, full_matrices=False)
    left = left[:, sizes > 1e-12 * sizes[0]]
    exact = np.linalg.norm(nu.numpy() @ left, axis=1)
    most, none = nu.norm(dim=1), torch.zeros_like(c)
    span = ColumnSpan.of_data(M, torch.arange(first, M.shape[1]))
    length = span.length(c, none, most)
    np.testing.assert_allclose(length, exact, rtol=1e-6)
    assert (span.length(c, none + 1e-9, most) >= length).all()


@pytest.mark.parametrize("ratio", [0.0, 1e-3, 0.5, 0.999])
@pytest.mark.parametrize("strength", [1e-7, 1e-2])
def test_elastic_net_against_clarabel(ratio: float, strength: float) -> None:
    case = make("", 6, 12, 2, 30, seed=3)
    solver = ADMMSolver(strength, strength, elastic_net=True, l1_ratio=ratio)
    _covers(solver, case.X, case.U, case.Z, case.Y, 0.9)
    assert solver.report is not None
    assert solver.report.worst_relative_gap is not None
    assert solver.report.worst_relative_gap <= solver.gap_tol


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize(("states", "inputs"), [(1.0, 1e4), (1e3, 1e3)])
@pytest.mark.parametrize("duplicates", [False, True])
def test_data_far_above_the_penalty_are_proved(
    states: float, inputs: float, duplicates: bool
) -> None:
    """Correlations of 1e-6 are hardly above what rounding leaves of their summands."""
    case = make("", 10, 16, 2, 100)
    X, U, Z, Y = (with_duplicates(case, "") if duplicates else case).states()
    X, U, Z, Y = states * X, inputs * U, states * Z, states * Y
    solver = ADMMSolver(max_iter=100)
    A, B, C, D = solver.solve(X, U, Z, Y, {"kappa": 0.9})
    assert solver.report is not None
    assert solver.report.worst_relative_gap is not None
    assert solver.report.worst_relative_gap <= solver.gap_tol
    for block, target, pair, bound in (("AB", Z, (A, B), 0.9), ("CD", Y, (C, D), None)):
        # The same problem, in units in which Clarabel is at ease.
        parts = (part / states for part in (X, U, target))
        best = states**2 * optimum(*parts, 1e-6 / states**2, 0.0, bound)
        found = objective(X, U, target, *pair, 1e-6, 0.0)
        gap = solver.report.blocks[block].gap
        assert gap is not None
        assert (gap >= found - best - 1e-8 * np.maximum(best, 0.5e-3 * (target**2).sum(1))).all()


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 4),
    p=st.integers(1, 5),
    m=st.integers(1, 12),
    spread=st.sampled_from([0.0, 2.0, 4.0]),
    strength=st.sampled_from([0.0, 1e-6, 1e-2]),
    ratio=st.sampled_from([0.0, 0.4, 1.0]),
    kappa=st.sampled_from([0.05, 0.9]),
    noise=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_small_problems_with_unlike_columns(
    n: int,
    p: int,
    m: int,
    spread: float,
    strength: float,
    ratio: float,
    kappa: float,
    noise: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    X, U = np.maximum(rng.normal(size=(n, m)), 0), rng.normal(size=(p, m))
    target = rng.normal(size=(n, n)) @ X + rng.normal(size=(n, p)) @ U
    target += noise * rng.normal(size=target.shape)
    U *= 10.0 ** rng.uniform(-spread, 0, size=(p, 1))
    solver = ADMMSolver(strength, strength, elastic_net=True, l1_ratio=ratio, max_iter=120)
    _covers(solver, X, U, target, target[:1], kappa)


def _covers(solver: ADMMSolver, X: Array, U: Array, Z: Array, Y: Array, kappa: float) -> None:
    """The gap of each row covers its distance from Clarabel's optimum."""
    A, B, C, D = solver.solve(X, U, Z, Y, {"kappa": kappa})
    assert solver.report is not None
    for block, target, pair, bound in (("AB", Z, (A, B), kappa), ("CD", Y, (C, D), None)):
        penalty, report = solver.penalty(block), solver.report.blocks[block]
        best = optimum(X, U, target, penalty.l1, penalty.l2, bound)
        found = objective(X, U, target, *pair, penalty.l1, penalty.l2)
        assert report.gap is not None
        # Clarabel's own optimum is known to about 1e-9.
        slack = 1e-8 * np.maximum(best, 0.5e-3 * (target**2).sum(1))
        assert (report.gap >= found - best - slack).all(), (report.gap, found - best)
