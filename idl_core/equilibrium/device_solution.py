"""A solution whose figures stay on the device until someone reads them, and late warnings.

A GPU works behind the host. To ask it at once whether a solve has converged is to wait for it, so
the figures are copied while it goes on, and what they say is said with a later solve, when they are
read, or when `say_late_warnings` is called.
"""

from __future__ import annotations

import atexit
import threading
import warnings
from collections import deque
from functools import cached_property

import torch
from torch import Tensor

from idl_core.equilibrium.figured_solution import FiguredSolution
from idl_core.equilibrium.solution import ImplicitFunctionWarning, Solution


class DeviceSolution(FiguredSolution):
    """Outcome of a solve of m samples, as a GPU kernel leaves it.

    Args:
        value: the fixed point.
        figures: (3, m) float32: |f(x) - x| of each sample, the bound on it, applications of the
            map.
        tol: what was asked for.
        relative: tol is in units of a right-hand side.
    """

    def __init__(
        self, value: Tensor, figures: Tensor, tol: float, *, relative: bool = False
    ) -> None:
        # One by one: torch.compile does not follow the update of a frozen object's dictionary.
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "figures", figures)
        object.__setattr__(self, "tol", tol)
        object.__setattr__(self, "relative", relative)

    relative: bool

    @cached_property
    def all_converged(self) -> bool:
        """Whether every sample is within its bound; waits for the device."""
        return bool(self.converged.all())

    def with_value(self, value: Tensor) -> Solution:
        return DeviceSolution(value, self.figures, self.tol, relative=self.relative)

    def warn_unless_converged(self, what: str) -> None:
        """Emit one `ImplicitFunctionWarning` if a sample is short of its tolerance: on a GPU once
        that is known. A solve that a CUDA graph captures is not watched."""
        if not self.figures.is_cuda:
            self._say(what)
            return
        # Streams and events are the current device's, which need not be the one that solves.
        with torch.cuda.device(self.figures.device):
            if torch.cuda.is_current_stream_capturing():  # where to ask an event is forbidden too
                return
            say_late_warnings(wait=False)
            host = torch.empty(self.figures.shape, pin_memory=True)
            host.copy_(self.figures, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        copy = DeviceSolution(host.new_empty(0), host, self.tol, relative=self.relative)
        with _turn:
            _pending.append((done, copy, what))

    def _say(self, what: str) -> None:
        if not self.all_converged:
            failed = ~self.converged
            warnings.warn(
                f"{what} did not converge for {int(failed.sum())} of {failed.numel()} samples: "
                f"residual {float(self.residual.max()):.3e} "
                f"after {int(self.maps.max())} iterations",
                ImplicitFunctionWarning,
                stacklevel=4,
            )
        elif not self.relative:
            self.say_where_rounding_decides()


_pending: deque[tuple[torch.cuda.Event, DeviceSolution, str]] = deque()
_turn = threading.Lock()  # adjoint solves are told by autograd's threads


def say_late_warnings(*, wait: bool = True) -> None:
    """Emit the warnings of solves on a GPU that were not known when these were called.

    Args:
        wait: for the GPU; else those are said that have arrived.
    """
    while (first := _take(wait)) is not None:
        done, solution, what = first
        done.synchronize()
        solution._say(what)


def _take(even_unfinished: bool) -> tuple[torch.cuda.Event, DeviceSolution, str] | None:
    """The first of those pending, if any, and if its figures have arrived or may be waited for."""
    with _turn:
        if _pending and (even_unfinished or _pending[0][0].query()):
            return _pending.popleft()
    return None


atexit.register(say_late_warnings)
