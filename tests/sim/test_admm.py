"""What is particular to ADMMSolver and its parts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make
from reference import objective, optimum

from idl.sim.solvers import ADMMSolver, SolveProgress
from idl_core import ImplicitFunctionWarning
from idl_core.sim.solvers.problem.compressed_data import compress
from idl_core.sim.solvers.problem.row_problem import RowProblem
from idl_core.wellposed import project_rows


def problem(m: int, D: int, l1: float, l2: float, kappa: float, ball: int, seed: int) -> RowProblem:
    rng = np.random.default_rng(seed)
    M, z = torch.from_numpy(rng.normal(size=(m, D))), torch.from_numpy(rng.normal(size=(3, m)))
    return RowProblem(*compress(M, z), ball, kappa, l1, l2)


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
    for size in (1e-3, 1.0, 1e6):
        w = size * torch.randn(3, D, generator=generator, dtype=torch.float64)
        at = rows.residual(w)
        for spread in (0.0, 0.1, 1.0):
            point = spread * torch.randn(3, D, generator=generator, dtype=torch.float64)
            v = torch.cat([project_rows(point[:, : D // 2], kappa), point[:, D // 2 :]], 1)
            value = rows.objective(v, rows.residual(v))
            bound = rows.dual_bound(at, value, v)
            assert (bound <= value + rows.rounding()).all()


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
    solver = ADMMSolver(1e-6, 1e-6, max_iter=2, gap_tol=1e-9)
    with pytest.warns(
        ImplicitFunctionWarning, match="ADMMSolver fell short: .* after 2 iter"
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
    """Beside λ = 1e-6, rounding in correlations of 1e10 is large."""
    rng = np.random.default_rng(0)
    U = size * rng.normal(size=(12, 300))
    first = rng.normal(size=(12, 12)) @ U / 3
    Z = np.concatenate([rng.normal(size=(12, 12)) @ np.maximum(first, 0) / 3, first])
    Z[1] = Z[0]
    X = np.maximum(Z, 0)
    solver = ADMMSolver(max_iter=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitFunctionWarning)
        *_, C, D = solver.solve(X, U, Z, Z[:2], {"kappa": 0.99})
    assert solver.report is not None
    gap = solver.report.blocks["CD"].gap
    assert gap is not None
    other = np.linalg.lstsq(np.concatenate([X, U]).T, Z[:2].T, rcond=None)[0].T
    least = objective(X, U, Z[:2], other[:, :24], other[:, 24:], 1e-6, 0.0)
    found = objective(X, U, Z[:2], C, D, 1e-6, 0.0)
    assert (gap >= found - least).all()
