"""Metrics of a model's equilibrium solver: iterations, residuals, and how often it fell short."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn

from idl_core import ImplicitFunctionWarning, flush_warnings


class SolverWatch:
    """Reads the solver's metrics, and counts its warnings instead of showing each of them.

    Use it as a context around training; the first warning is passed to `say`.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.warnings = 0
        self._say = say
        self._catching = warnings.catch_warnings()

    def __enter__(self) -> SolverWatch:
        self._catching.__enter__()
        warnings.simplefilter("always", ImplicitFunctionWarning)
        show = warnings.showwarning

        def count(
            message: Warning | str, category: type[Warning], *where: Any, **rest: Any
        ) -> None:
            if not issubclass(category, ImplicitFunctionWarning):
                show(message, category, *where, **rest)
                return
            self.warnings += 1
            if self.warnings == 1:
                self._say(f"warning: {message} (said once; summary.json has the count)")

        warnings.showwarning = count
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            flush_warnings()  # of solves that a GPU has yet to finish
        self._catching.__exit__(kind, error, trace)

    def probe(self, model: nn.Module) -> dict[str, float]:
        """Of the last solves: mean iterations, worst residual, samples, those short of tolerance.

        Empty for a model that has no solver.
        """
        solution = getattr(model, "last_solution", None)
        if solution is None or solution.forward is None:
            return {}
        metrics = {
            "forward_iterations": float(solution.forward.iterations.double().mean()),
            "forward_residual": float(solution.forward.residual.max()),
            "solver_samples": float(solution.forward.iterations.numel()),
            "not_converged": float((~solution.forward.converged).sum()),
        }
        if solution.adjoint is not None:
            metrics["adjoint_iterations"] = float(solution.adjoint.iterations.double().mean())
            metrics["adjoint_residual"] = float(solution.adjoint.residual.max())
        return metrics
