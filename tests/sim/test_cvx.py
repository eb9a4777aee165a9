"""What is particular to CVXSolver."""

from __future__ import annotations

import numpy as np
import pytest
from problems import make

from idl.sim.solvers import CVXSolver, InfeasibleMatch, SolveProgress
from idl_core import ImplicitFunctionWarning


def test_an_exact_match_that_is_impossible_says_so() -> None:
    case = make("", 6, 8, 2, 40)
    with pytest.raises(InfeasibleMatch, match="no weights match the states of row 0 exactly"):
        CVXSolver(regularized=False, num_processes=1).solve(*case.states(), case.config)


def test_an_exact_match_that_is_possible_is_found() -> None:
    case = make("", 6, 30, 2, 10)
    A, B, C, D = CVXSolver(regularized=False, num_processes=1).solve(*case.states(), case.config)
    np.testing.assert_allclose(A @ case.X + B @ case.U, case.Z, atol=1e-4)
    np.testing.assert_allclose(C @ case.X + D @ case.U, case.Y, atol=1e-4)


def test_processes_give_the_same_answer_as_one() -> None:
    case = make("", 6, 8, 2, 40)
    told = list[SolveProgress]()
    many = CVXSolver(num_processes=2, batch_size=2)
    many.on_progress = told.append
    one = CVXSolver(num_processes=1, num_row=4)
    for a, b in zip(
        many.solve(*case.states(), case.config), one.solve(*case.states(), case.config), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-4)
    assert [p.done for p in told if p.block == "AB"] == [2, 4, 6]


def test_a_tolerance_out_of_reach_is_told_once() -> None:
    case = make("", 6, 8, 2, 40)
    solver = CVXSolver(num_processes=1, accuracy=1e-18)
    with pytest.warns(ImplicitFunctionWarning, match="CVXSolver fell short: Clarabel did") as told:
        solver.solve(*case.states(), case.config)
    assert len(told) == 1
    assert solver.report is not None
    assert "of 1e-18 in" in solver.report.notes[0]


def test_states_too_large_for_clarabel_are_not_called_an_exact_match() -> None:
    case = make("", 6, 20, 1, 60)
    states = [1e6 * part for part in case.states()]
    with pytest.raises(RuntimeError, match=r"no weights: bring the states, of up to \d.\de\+0\d"):
        CVXSolver(num_processes=1).solve(*states, case.config)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["num_row", "batch_size", "num_processes"])
def test_options_out_of_range_are_named(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        CVXSolver(**{option: 0})
