"""What numba's programs can solve here, and what they take beside memory."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import ROUNDING_UNITS
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba.memory import addressable, is_watched

Finish = Activation | Tensor
"""What follows an affine map: φ, or the slopes that stand for it in an adjoint."""

Expected = tuple[tuple[Tensor | None, tuple[int, ...]], ...]
"""What a program would be given, and the shapes that it would read: compiled code looks at none."""

NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}


def obstacle(finish: Finish, solvers: tuple[Solver, ...], expected: Expected) -> str | None:
    """Why the programs cannot solve with these; None where they can."""
    if not isinstance(finish, Tensor) and finish.negative_slope is None:
        return f"{finish.name or 'the activation'} has no numba form"
    for solver in solvers:
        if not isinstance(solver, Picard):
            return f"it is a Picard iteration, and the solver is {type(solver).__name__}"
    if is_watched():
        return "a mode of torch looks at its operations"
    first = expected[0][0]
    assert first is not None
    dtype = first.dtype
    if dtype not in NUMBERS:
        return f"{dtype} is left to torch: it takes float32 and float64"
    for x, shape in expected:
        # Where a shape is not as expected it is for torch to say so.
        if x is not None and not (x.dtype is dtype and x.shape == shape and addressable(x)):
            if not x.is_cpu:
                return f"it is on the {x.device.type}, not on the CPU"
            return f"a tensor of {tuple(x.shape)} in {x.dtype} is not {shape} in memory in {dtype}"
    return why_not()


@cache
def why_not() -> str | None:
    """Why nothing can be solved by numba here; None if it can."""
    try:
        programs()
    except (ImportError, RuntimeError) as error:
        return f"{error} (pip install 'idl[fast]')"
    return None


class _Programs(NamedTuple):
    picard: ModuleType
    sequence: ModuleType
    dense: ModuleType
    model: ModuleType
    norm: ModuleType
    samples: ModuleType


@cache
def programs() -> _Programs:
    """What needs numba, imported when it is first used."""
    from idl_core.kernels.numba.programs import dense, model, norm, picard, samples, sequence

    return _Programs(picard, sequence, dense, model, norm, samples)


def below(finish: Finish) -> float:
    """The slope below zero of what follows an affine map."""
    slope = 1.0 if isinstance(finish, Tensor) else finish.negative_slope
    assert slope is not None
    return slope


@cache
def limits(solver: Picard, below: float, dtype: torch.dtype, relative: bool) -> Any:
    """How the programs iterate, in numbers of the arrays' type."""
    number = NUMBERS[dtype]
    rounding = ROUNDING_UNITS * torch.finfo(dtype).eps
    given = number(solver.tol), relative, number(rounding), solver.max_iter, number(below)
    return programs().picard.Limits(*given, solver.then is not None)
