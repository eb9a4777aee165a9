"""What numba's programs can solve here, and what they take beside memory."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from idl_core.activations import Activation
from idl_core.equilibrium.solution import ROUNDING_UNITS
from idl_core.equilibrium.solvers import Picard, Solver
from idl_core.kernels.numba.memory import addressable, is_watched
from idl_core.kernels.numba.programs import SMOOTH

Finish: TypeAlias = Activation | Tensor
"""What follows an affine map: φ, or the slopes that stand for it in an adjoint."""

Expected = tuple[tuple[Tensor | None, tuple[int, ...]], ...]
"""What a program would be given, and the shapes that it would read: compiled code looks at none."""

NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}


def obstacle(
    finish: Finish, solvers: tuple[Solver, ...], expected: Expected, smooth: bool = False
) -> str | None:
    """Why the programs cannot solve with these; None where they can.

    smooth: whether φ may be one of `SMOOTH`
    """
    if not isinstance(finish, Tensor) and finish.negative_slope is None:
        if finish.name not in SMOOTH:
            return f"{finish.name or 'the activation'} has no numba form"
        if not smooth:
            return f"of {finish.name} it takes whole models alone, in float32 or of few samples"
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


def phi(finish: Finish) -> tuple[int, float]:
    """What the programs know φ by: -1 and its slope below zero, or its place in `SMOOTH` and 0."""
    if isinstance(finish, Tensor):
        return -1, 1.0
    if finish.negative_slope is not None:
        return -1, finish.negative_slope
    return SMOOTH.index(str(finish.name)), 0.0


@cache
def limits(solver: Picard, phi: tuple[int, float], dtype: torch.dtype, relative: bool) -> Any:
    """How the programs iterate, in numbers of the arrays' type."""
    number = NUMBERS[dtype]
    rounding = ROUNDING_UNITS * torch.finfo(dtype).eps
    known = phi[0], number(phi[1])
    given = number(solver.tol), relative, number(rounding), solver.max_iter, known
    return programs().picard.Limits(*given, solver.then is not None)
