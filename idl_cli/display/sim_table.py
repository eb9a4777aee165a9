"""The table that `idl sim` ends with."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal

from idl_cli.display.results_table import print_results
from idl_cli.display.tables import Column, print_table
from idl_core.sim import SIM
from idl_core.training import Metrics


def print_learned(taught: Metrics, learned: Metrics, sim: SIM) -> None:
    """Print both models' test metrics, and what the solve found, with its duality gaps."""
    quality = sim.quality
    assert quality is not None
    print_results({"teacher": taught, "SIM": learned})
    rows = [("‖A‖∞", f"{quality.norm_inf_A:.4f} (κ {sim.radius:.4g})")]
    zeros = ", ".join(f"{name} {100 * share:.0f} %" for name, share in quality.sparsity.items())
    rows.append(("zeros", zeros))
    rows.append(
        ("mean square error", f"states {quality.state_mse:.3g}, outputs {quality.output_mse:.3g}")
    )
    if report := quality.report:
        rows.append(("objective", f"{report.objective:.6g}"))
        if report.gap is not None and report.worst_relative_gap is not None:
            rows[-1] = (
                "objective",
                f"{report.objective:.6g}, at most {rounded_up(report.gap)} above the optimum",
            )
            worst = rounded_up(report.worst_relative_gap)
            rows.append(("worst row's gap", f"{worst} of max(its objective, 1e-6 · ½‖z‖²)"))
        rows.append(("solved in", f"{report.seconds:.1f} s"))
    print_table([Column("", [name for name, _ in rows]), Column("", [text for _, text in rows])])


def rounded_up(bound: float) -> str:
    """A bound that is not negative in two digits that are no less than it."""
    digits = Decimal(str(bound)).normalize(Context(prec=2, rounding=ROUND_CEILING))
    return f"{digits:.1e}" if bound else "0"
