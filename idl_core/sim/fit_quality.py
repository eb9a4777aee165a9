"""How well weights fit the states they were solved from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from idl_core.sim.scaling import Scalers
from idl_core.sim.solvers.problem.report import SolveReport
from idl_core.sim.states import Layer

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FitQuality:
    """Figures of a fit; errors are in the units of the states as they were given, standardised or
    not.

    Attributes:
        norm_inf_A: ‖A‖∞.
        sparsity: share of zeros in each of A, B, C, D.
        state_mse: mean square of Z - AX - BU.
        output_mse: mean square of Y - CX - DU; X are the states that C and D were fitted to.
        layer_mse: mean square of Z - AX - BU in each layer, deepest first.
        report: the solver's, if it gives one.
    """

    norm_inf_A: float
    sparsity: dict[str, float]
    state_mse: float
    output_mse: float
    layer_mse: dict[str, float] = field(default_factory=dict)
    report: SolveReport | None = None

    @classmethod
    def of(
        cls,
        weights: dict[str, Array],
        states: dict[str, Array],
        layers: list[Layer],
        report: SolveReport | None,
        regenerated: Array | None = None,
        scalers: Scalers | None = None,
    ) -> FitQuality:
        """Of weights A, B, C, D on states X, U, Z, Y.

        Args:
            regenerated: X (n, m) that C and D were fitted to, where it is another.
            scalers: what standardised the states.
        """
        X, U, Z, Y = (np.asarray(states[key], np.float64) for key in ("X", "U", "Z", "Y"))
        square = ((Z - weights["A"] @ X - weights["B"] @ U) ** 2).mean(1)
        X = X if regenerated is None else regenerated
        outputs = ((Y - weights["C"] @ X - weights["D"] @ U) ** 2).mean(1)
        if scalers is not None:
            square, outputs = square * scalers.Z.spread**2, outputs * scalers.Y.spread**2
        by_layer: dict[str, float] = {}
        for layer in layers:
            name = layer.name
            while name in by_layer:  # one module called several times
                name += "'"
            by_layer[name] = float(square[layer.start : layer.stop].mean())
        return cls(
            norm_inf_A=float(np.abs(weights["A"]).sum(1).max(initial=0.0)),
            sparsity={k: float((w == 0).mean()) if w.size else 0.0 for k, w in weights.items()},
            state_mse=float(square.mean()) if square.size else 0.0,
            output_mse=float(outputs.mean()) if outputs.size else 0.0,
            layer_mse=by_layer,
            report=report,
        )

    def figures(self) -> dict[str, Any]:
        """Plain numbers under the names that `summary.json` has for them."""
        told: dict[str, Any] = {
            "norm_inf_A": self.norm_inf_A,
            "sparsity": self.sparsity,
            "state_mse": self.state_mse,
            "output_mse": self.output_mse,
        }
        return told | (self.report.figures() if self.report is not None else {})
