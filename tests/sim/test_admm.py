"""What is particular to ADMMSolver and its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make
from reference import objective, optimum

from idl.sim.solvers import ADMMSolver, SolveProgress
from idl_core import ImplicitFunctionWarning
from idl_core.sim.solvers.problem.gram import Gram
from idl_core.sim.solvers.problem.row_problem import RowProblem


def problem(m: int, D: int, l1: float, l2: float, kappa: float, ball: int, seed: int) -> RowProblem:
    rng = np.random.default_rng(seed)
    M, z = torch.from_numpy(rng.normal(size=(m, D))), torch.from_numpy(rng.normal(size=(3, m)))
    gram = Gram.of(M)
    lengths = gram.diagonal().sqrt()
    return RowProblem(gram, z @ M, (z * z).sum(1), lengths, ball, kappa, l1, l2)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 12),
    D=st.integers(2, 10),
    l1=st.sampled_from([0.0, 1e-6, 0.01, 1.0]),
    l2=st.sampled_from([0.0, 0.3]),
    kappa=st.sampled_from([0.01, 0.5, 100.0]),
    seed=st.integers(0, 1000),
)
def test_no_dual_bound_is_above_any_objective(
    m: int, D: int, l1: float, l2: float, kappa: float, seed: int
) -> None:
    """Weak duality, for residuals of arbitrary points and arbitrary feasible answers."""
    rows = problem(m, D, l1, l2, kappa, D // 2, seed)
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(D, dtype=torch.float64)
    for size in (1e-3, 1.0, 1e6):
        w = size * torch.randn(3, D, generator=generator, dtype=torch.float64)
        c = rows.h - rows.gram.apply(w)
        for spread in (0.0, 0.1, 1.0):
            point = spread * torch.randn(3, D, generator=generator, dtype=torch.float64)
            v = rows.prox(point, ones)
            value = rows.objective(v, rows.gram.apply(v))
            bound = rows.dual_bound(w, c, value, v)
            assert (bound <= value + rows.rounding()).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), l2=st.sampled_from([0.0, 0.7]), kappa=st.sampled_from([0.1, 2.0]))
def test_prox_solves_its_problem(seed: int, l2: float, kappa: float) -> None:
    """Against CVXPY: argmin of the penalties, the ball and ½ Σ ρ (v - point)²."""
    rows = problem(5, 6, 0.4, l2, kappa, 3, seed)
    rho = torch.tensor([2.0, 2.0, 2.0, 0.5, 1.0, 5.0], dtype=torch.float64)
    point = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 6)) * 2)
    v = rows.prox(point, rho)[0].numpy()
    # The problem of a row with data diag(√ρ): l2 enters unscaled.
    root = rho.sqrt().numpy()
    best = optimum(np.diag(root)[:3], np.diag(root)[3:], (root * point.numpy()), 0.4, l2, kappa)
    value = 0.5 * (rho.numpy() * (v - point.numpy()[0]) ** 2).sum()
    value += 0.4 * np.abs(v).sum() + 0.5 * l2 * (v**2).sum()
    assert value <= best[0] + 1e-8
    assert np.abs(v[:3]).sum() <= kappa * (1 + 1e-12)


@pytest.mark.parametrize(("m", "D"), [(30, 8), (3, 20), (12, 20)])
def test_both_forms_of_the_factor_invert(m: int, D: int) -> None:
    M = torch.randn(m, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rho = torch.rand(D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.01
    exact = torch.linalg.inv(M.T @ M + torch.diag(rho))
    right = torch.eye(D, dtype=torch.float64)
    columns = torch.tensor([0, 2, 5])
    for gram in (Gram(matrix=M.T @ M), Gram(data=M)):
        inverse = gram.inverse(rho)
        torch.testing.assert_close(inverse.apply(right), exact)
        torch.testing.assert_close(inverse.block(columns), exact[columns][:, columns])
        torch.testing.assert_close(gram.block(columns), (M.T @ M)[columns][:, columns])
        torch.testing.assert_close(gram.diagonal(), (M * M).sum(0))


@pytest.mark.parametrize("batch", [1, 3, None])
def test_batches_of_rows_give_the_same_optimum(batch: int | None) -> None:
    case = make("", 8, 10, 3, 60)
    solver = ADMMSolver(1e-3, 1e-3, batch_feature_size=batch, gap_tol=1e-8)
    A, B, *_ = solver.solve(*case.states(), case.config)
    whole = ADMMSolver(1e-3, 1e-3, gap_tol=1e-8)
    A2, B2, *_ = whole.solve(*case.states(), case.config)
    np.testing.assert_allclose(np.hstack([A, B]), np.hstack([A2, B2]), atol=1e-4)


def test_progress_tells_of_rows_and_of_the_worst_gap() -> None:
    case, told = make("", 8, 10, 3, 60), list[SolveProgress]()
    solver = ADMMSolver(1e-3, 1e-3)
    solver.on_progress = told.append
    solver.solve(*case.states(), case.config)
    assert {p.block for p in told} == {"AB", "CD"}
    last = [p for p in told if p.block == "AB"][-1]
    assert last.done == last.rows == 8
    assert last.worst_gap <= solver.gap_tol
    assert solver.report is not None
    history = solver.report.blocks["AB"].history
    assert [h[0] for h in history] == sorted(h[0] for h in history)
    assert history[-1][1] <= solver.gap_tol


def test_stopping_early_is_told_and_the_gap_stays_honest() -> None:
    case = make("", 8, 10, 3, 60, strength=1e-6)
    solver = ADMMSolver(1e-6, 1e-6, max_iter=20, gap_tol=1e-9)
    with pytest.warns(
        ImplicitFunctionWarning, match="ADMMSolver fell short: .* after 20 iter"
    ) as told:
        solver.solve(*case.states(), case.config)
    assert len(told) == 1
    assert solver.report is not None
    assert "of 8 rows of [A B] were short of the gap of 1e-09" in solver.report.notes[0]
    best = optimum(case.X, case.U, case.Z, 1e-6, 0.0, case.kappa)
    block = solver.report.blocks["AB"]
    assert block.gap is not None
    assert (block.gap >= block.objective - best - 1e-9).all()


def test_small_weights_set_to_zero_are_charged_to_the_gap() -> None:
    case = make("", 8, 10, 3, 60)
    solver = ADMMSolver(1e-3, 1e-3, tol=0.05)
    with pytest.warns(
        ImplicitFunctionWarning, match=r"once tol=0.05 had set small weights to zero"
    ):
        solver.solve(*case.states(), case.config)
    assert solver.report is not None
    block = solver.report.blocks["AB"]
    best = optimum(case.X, case.U, case.Z, 1e-3, 0.0, case.kappa)
    assert block.gap is not None
    assert (block.gap >= block.objective - best - 1e-9).all()
    assert (block.objective - best).max() > 1e-3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lambda_y", -1.0),
        ("lambda_z", float("nan")),
        ("l1_ratio", 2.0),
        ("gap_tol", 0.0),
        ("max_iter", 0),
        ("relaxation", 2.0),
        ("batch_feature_size", 0),
        ("dtype", torch.int64),
    ],
)
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        ADMMSolver(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_states_of_any_size_are_solved_or_have_an_honest_gap(size: float) -> None:
    """Λ/λ + NᵀN of the free directions is indefinite by rounding where states are there twice."""
    rng = np.random.default_rng(0)
    U = size * rng.normal(size=(12, 300))
    first = rng.normal(size=(12, 12)) @ U / 3
    Z = np.concatenate([rng.normal(size=(12, 12)) @ np.maximum(first, 0) / 3, first])
    Z[1] = Z[0]
    X = np.maximum(Z, 0)
    solver = ADMMSolver(max_iter=50)
    with pytest.warns(ImplicitFunctionWarning, match="fell short"):
        *_, C, D = solver.solve(X, U, Z, Z[:2], {"kappa": 0.99})
    assert solver.report is not None
    gap = solver.report.blocks["CD"].gap
    assert gap is not None
    other = np.linalg.lstsq(np.concatenate([X, U]).T, Z[:2].T, rcond=None)[0].T
    least = objective(X, U, Z[:2], other[:, :24], other[:, 24:], 1e-6, 0.0)
    found = objective(X, U, Z[:2], C, D, 1e-6, 0.0)
    assert (gap >= found - least).all()
