"""The fixed-point solvers that every property is held against."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from idl_core import Anderson, Broyden, Picard
from idl_core.equilibrium import Solver

SOLVERS: dict[str, Callable[..., Solver]] = {
    "picard": Picard,
    "picard then anderson": lambda **settings: Picard(then=Anderson(), **settings),
    "anderson": Anderson,
    "broyden": Broyden,
}
every_solver = pytest.mark.parametrize("make", SOLVERS.values(), ids=SOLVERS)


def rows(x: Tensor) -> Tensor:
    return x.reshape(1, -1) if x.dim() < 2 else x.flatten(1)
