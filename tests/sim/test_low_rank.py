"""What is particular to ProjectedGDLowRankSolver."""

from __future__ import annotations

import numpy as np
import pytest
from problems import make

from idl.sim.solvers import ProjectedGDLowRankSolver
from idl_core import ImplicitFunctionWarning


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_rank_is_kept(rank: int) -> None:
    case = make("", 8, 10, 3, 60)
    A, *_ = ProjectedGDLowRankSolver(rank=rank).solve(*case.states(), case.config)
    assert np.linalg.matrix_rank(A) <= rank
    assert np.abs(A).sum(1).max() <= case.kappa


def test_more_rank_and_more_epochs_fit_better() -> None:
    case = make("", 8, 4, 3, 60)

    def misfit(**options: int) -> float:
        A, B, *_ = ProjectedGDLowRankSolver(**options).solve(*case.states(), case.config)  # type: ignore[arg-type]
        return float(((case.Z - A @ case.X - B @ case.U) ** 2).sum())

    assert misfit(rank=8) <= misfit(rank=1) * (1 + 1e-6)
    with pytest.warns(ImplicitFunctionWarning, match=r"had not settled after \d+ epochs") as told:
        assert misfit(rank=3, num_epoch=200) <= misfit(rank=3, num_epoch=2) * (1 + 1e-9)
    assert len(told) == 1  # 200 epochs are enough


def test_inputs_that_express_all_leave_A_out() -> None:
    case = make("", 6, 30, 2, 10)
    A, B, *_ = ProjectedGDLowRankSolver(rank=2).solve(*case.states(), case.config)
    np.testing.assert_allclose(A @ case.X + B @ case.U, case.Z, atol=1e-8)
    np.testing.assert_allclose(A, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "value"), [("rank", 0), ("num_epoch", 0), ("lr", 2.0), ("lambda_z", -1.0)]
)
def test_options_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        ProjectedGDLowRankSolver(**{option: value})  # type: ignore[arg-type]
    case = make("", 3, 4, 2, 5)
    with pytest.raises(ValueError, match=r"rank must be in 1\.\.3"):
        ProjectedGDLowRankSolver(rank=4).solve(*case.states(), case.config)
