"""Rows in the directions that the data see: with few samples these are the fewer.

With the eigenvectors V (D, r) of K and its eigenvalues S, y = Vξ, and the first condition becomes

    Vᵀw + λ S⁻¹ ξ = S⁻¹ Vᵀh,

whose Newton step needs one factor of Vᵀ diag(E) V + λ S⁻¹, an r x r matrix, a row and step. What is
orthogonal to V does not enter the data's part of the objective.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idl_core.sim.solvers.interior_point.mehrotra import (
    RESIDUAL,
    CholeskySolve,
    Newton,
    Point,
    Program,
)
from idl_core.sim.solvers.interior_point.weighted_products import WeightedProducts
from idl_core.sim.solvers.problem.cholesky import cholesky
from idl_core.sim.solvers.problem.row_problem import RowProblem

_MOST = 2500  # directions: each row factors a matrix of that size at every step
_RIDGES = [10.0**exponent for exponent in range(13)]


class RowSpace:
    """The directions of all rows of one problem.

    Attributes:
        V: (D, r); values: (r,), S.
        row_numbers: numbers that the work on one row takes, to bound memory.
    """

    def __init__(self, values: Tensor, V: Tensor) -> None:
        self.values, self.V, self.products = values, V, WeightedProducts(V, 0)
        self.row_numbers = len(values) ** 2 + 8 * len(V)

    @classmethod
    def of(cls, problem: RowProblem) -> RowSpace | None:
        """The space; None where it is too large to pay, or the penalty has another part."""
        gram = problem.gram
        if problem.l2 or not problem.l1 or problem.h.dtype != torch.float64 or gram.rank > _MOST:
            return None
        if gram.data is not None:
            # Of the data: squaring them first would cost half of the digits.
            _, singular, right = torch.linalg.svd(gram.data, full_matrices=False)
            values, V = singular**2, right.T
        else:
            assert gram.matrix is not None
            values, V = torch.linalg.eigh(gram.matrix)
        least = len(V) * torch.finfo(values.dtype).eps
        above = values > values.max() * (least**2 if gram.data is not None else least)
        return cls(values[above], V[:, above].contiguous()) if bool(above.any()) else None


@dataclass
class RowSpaceProgram(Program):
    """Everything divided by λ.

    Attributes:
        seen: (k, r), S⁻¹Vᵀh.
        constant: (k,) ½ of what of z no w can fit, squared.
    """

    rows: RowProblem
    space: RowSpace
    seen: Tensor
    constant: Tensor

    @classmethod
    def of(cls, rows: RowProblem, space: RowSpace) -> RowSpaceProgram:
        along = rows.h @ space.V
        unseen = rows.zz - (along * along / space.values).sum(1)
        return cls(rows, space, along / space.values, 0.5 * unseen.clamp(min=0) / rows.l1)

    def select(self, keep: Tensor) -> RowSpaceProgram:
        seen, constant = self.seen[keep], self.constant[keep]
        return replace(self, rows=self.rows.rows(keep), seen=seen, constant=constant)

    def judge(self, point: Point, relative_gap: float) -> tuple[Program, Point, Tensor]:
        misfit = self.seen - (point.p - point.n) @ self.space.V
        smooth = 0.5 * (misfit**2 * self.space.values).sum(1) / self.rows.l1
        gap, scale = self.gap(point, self.constant + smooth)
        moved = (self.left(point) @ self.space.V.T).abs().sum(1)  # by `answer`
        gap = gap + (1 + point.theta[:, 0]) * moved
        outside = self.outside(point).abs()[:, 0]
        return self, point, (gap > relative_gap * scale) | (outside > RESIDUAL)

    def newton(self, point: Point) -> Newton:
        return _RowSpaceNewton(self, point)

    def answer(self, point: Point) -> Tensor:
        # Along V, what is left of the first condition is taken up: rounding there, times S/λ.
        return point.p - point.n + self.left(point) @ self.space.V.T

    def left(self, point: Point) -> Tensor:
        """S⁻¹Vᵀh - Vᵀw - λS⁻¹ξ (k, r)."""
        along = (point.p - point.n) @ self.space.V
        return self.seen - along - self.rows.l1 / self.space.values * point.t

    def start(self) -> tuple[Point, Tensor]:
        """Least squares with a ridge of λ, and on a with the least of some that brings it within
        reach of the ball; ξ as large as |y| ≤ 1 on b lets it. Every row can start."""
        space, l1, ball = self.space, self.rows.l1, self.ball

        def at_ridge(ridge: float) -> tuple[Tensor, Tensor]:
            weight = 1 / (1 + ridge * ball)
            matrix = space.products.lower(weight[None])
            matrix.diagonal(dim1=1, dim2=2).add_(l1 / space.values)
            xi = torch.cholesky_solve(self.seen.T, cholesky(matrix[0])).T
            return xi, weight * (xi @ space.V.T)

        xi, w, _ = self.within_reach(at_ridge, _RIDGES)
        y = xi @ space.V.T
        share = (0.5 / ((1 - ball) * y).abs().amax(1, keepdim=True).clamp(min=1e-300)).clamp(max=1)
        every = torch.ones_like(self.constant, dtype=torch.bool)
        return self.split(share * xi, w, share * y), every


class _RowSpaceNewton(Newton):
    def __init__(self, program: RowSpaceProgram, at: Point) -> None:
        super().__init__(program, at)
        space = program.space
        self.V, self.left, self.outside = space.V, program.left(at), program.outside(at)
        matrix = space.products.lower(self.E)
        matrix.diagonal(dim1=1, dim2=2).add_(program.rows.l1 / space.values)
        self.solve = CholeskySolve(matrix)
        if self.has_ball:
            self.v = self.F @ self.V
            self.Kv = self.solve(self.v)
            stiff = (self.E * self.ball).sum(1, keepdim=True) + at.slack / at.theta
            self.down = stiff - (self.v * self.Kv).sum(1, keepdim=True)

    def reduced(self, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d_xi = self.solve(self.left - q @ self.V)
        d_theta = torch.zeros_like(r)
        if self.has_ball:
            over = r + (self.v * d_xi).sum(1, keepdim=True) - self.outside
            d_theta = over / self.down
            d_xi = d_xi + self.Kv * d_theta
        return d_xi, d_xi @ self.V.T, d_theta
