"""The factorisations that all rows of one problem share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from idl_core.sim.memory import INVERSES
from idl_core.sim.solvers.interior_point.low_curvature_subspace import LowCurvatureSubspace
from idl_core.sim.solvers.interior_point.row_space_program import RowSpace
from idl_core.sim.solvers.problem.gram import Gram, Inverse
from idl_core.sim.solvers.problem.row_problem import RowProblem


class Factors:
    """Inverses of G + diag(ρ), each made once: one for each pair of penalties in use.

    Args:
        gram: G.
        ball: number of leading columns with the first of the two penalties.
        l2: weight of ½‖w‖², part of the polisher's matrices.
    """

    rungs = 5  # of the polisher's ladder

    def __init__(self, gram: Gram, ball: int, l2: float) -> None:
        self.gram, self.ball, self.l2 = gram, ball, l2
        self.diagonal = gram.diagonal()
        # No columns, or only columns of zeros, have no scale.
        self.mean = (float(self.diagonal.mean()) if gram.size else 0.0) or 1.0
        self.spaces: dict[int | None, LowCurvatureSubspace | RowSpace | None] = {}
        self.made: OrderedDict[tuple[str, int, int], Inverse] = OrderedDict()

    def penalties(self, exponents: tuple[int, int]) -> Tensor:
        """ρ (D,): 10 to the first exponent on the ball's columns, to the second on the others."""
        rho = torch.full_like(self.diagonal, 10.0 ** exponents[1])
        rho[: self.ball] = 10.0 ** exponents[0]
        return rho

    def inverse(self, exponents: tuple[int, int]) -> Inverse:
        """(G + diag(ρ))⁻¹ for these penalties."""
        return self._get(("admm", *exponents), lambda: self.penalties(exponents))

    def rung(self, level: int) -> Inverse:
        """(G + ε + l2)⁻¹ for polishing, ε = 10^-(7 + level) of G's mean diagonal.

        A large ε makes the exchanges tame, a small one makes their limit exact.
        """
        epsilon = 10.0 ** (-7 - level) * self.mean + self.l2
        return self._get(("polish", level, 0), lambda: torch.full_like(self.diagonal, epsilon))

    def space(
        self, problem: RowProblem, free: int | None
    ) -> LowCurvatureSubspace | RowSpace | None:
        """`LowCurvatureSubspace.of` this problem, or `RowSpace.of` for None; each found once."""
        if free not in self.spaces:
            self.spaces[free] = (
                RowSpace.of(problem) if free is None else LowCurvatureSubspace.of(problem, free)
            )
        return self.spaces[free]

    def _get(self, key: tuple[str, int, int], rho: Callable[[], Tensor]) -> Inverse:
        if key not in self.made:
            self.made[key] = self.gram.inverse(rho())
            while len(self.made) > INVERSES:
                self.made.popitem(last=False)
        self.made.move_to_end(key)
        return self.made[key]
