"""Rows that the data leave nearly free in a few directions: an interior-point method there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import optimum

from idl_core.sim.solvers.admm_rows import ADMMSettings, solve_rows
from idl_core.sim.solvers.best_answers import BestAnswers
from idl_core.sim.solvers.gram import Gram
from idl_core.sim.solvers.row_problem import RowProblem
from idl_core.sim.solvers.weak_directions import Spectrum, solve_weak

D, BALL, COPIES, L1 = 40, 15, 8, 1e-4


def nearly_collinear(m: int) -> torch.Tensor:
    """M (m, D) whose last columns are copies of earlier ones but for 1e-3."""
    rng = np.random.default_rng(0)
    M = rng.normal(size=(m, D))
    M[:, -COPIES:] = M[:, :COPIES] + 1e-3 * rng.normal(size=(m, COPIES))
    return torch.from_numpy(M)


@pytest.mark.parametrize("ball", [BALL, 0])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_nearly_collinear_columns_are_solved_without_an_iteration_of_admm(
    ball: int, noise: float
) -> None:
    M = nearly_collinear(120)
    rng = np.random.default_rng(1)
    # The columns that have copies, so that shares between the two are what the penalty decides.
    w = np.where(np.arange(D) < COPIES, 0.03, 0.0) * rng.normal(size=(5, D))
    w[3:] *= 10  # outside the ball
    z = torch.from_numpy(w) @ M.T + noise * torch.from_numpy(rng.normal(size=(5, 120)))
    gram = Gram(matrix=M.T @ M, samples=120)
    rows = RowProblem(gram, z @ M, (z * z).sum(1), gram.diagonal().sqrt(), ball, 0.3, L1, 0.0)
    spectrum = Spectrum.of(gram, L1)
    assert spectrum is not None
    assert spectrum.N.shape == (D, COPIES)

    best = BestAnswers(rows)
    solve_weak(best, torch.arange(5), spectrum, 1e-5)

    X, U = M[:, :ball].T.numpy(), M[:, ball:].T.numpy()
    exact = optimum(X, U, z.numpy(), L1, 0.0, 0.3 if ball else None)
    scale = np.maximum(exact, 0.5e-6 * rows.zz.numpy())
    # Along the strong directions the answer is of first order in λ: what ‖Mᵀν‖² ≤ λ²D leaves.
    second_order = L1**2 * D * float(spectrum.inverse.max())
    assert (best.gap().numpy() <= 1e-5 * scale + second_order).all()
    assert (best.objective.numpy() - exact <= best.gap().numpy() + 1e-9 * scale).all()
    assert (best.v[:, :ball].abs().sum(1) <= 0.3 * (1 + 1e-12)).all()


def test_there_is_no_split_where_it_would_not_help() -> None:
    M = nearly_collinear(120)
    assert Spectrum.of(Gram(matrix=M.T @ M, samples=120), 1e-12) is None  # none is weak
    assert Spectrum.of(Gram(matrix=M.T @ M, samples=120), 0.0) is None
    assert Spectrum.of(Gram(data=M[:10]), L1) is None


def test_it_is_for_rows_that_are_open_and_have_no_quadratic_penalty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It knows λ‖·‖₁ alone; and the eigenvectors cost as much as a few factors."""

    def refuse(gram: Gram, l1: float) -> None:
        raise AssertionError("nothing here needs the spectrum")

    monkeypatch.setattr(Spectrum, "of", refuse)
    M = nearly_collinear(120)
    z = (M @ torch.linspace(-0.1, 0.1, D, dtype=torch.float64))[None]
    gram = Gram(matrix=M.T @ M, samples=120)
    for l2, gap_tol in ((0.3, 1e-12), (0.0, 10.0)):
        rows = RowProblem(gram, z @ M, (z * z).sum(1), gram.diagonal().sqrt(), 0, 0.0, L1, l2)
        solve_rows(rows, ADMMSettings(gap_tol, 120, 1.6, 1))
