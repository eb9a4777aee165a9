"""What `idl sim` ends with: its table, and its figures."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context

from idl_cli.display.figures import FIRST, SECOND, STYLE, blank_figure, draw_curve, save, spy_plot
from idl_cli.display.results_table import print_results
from idl_cli.display.tables import Column, print_table
from idl_core.sim import SIM
from idl_core.training import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLOCKS = {"AB": "rows of [A B]", "CD": "rows of [C D]"}


def print_learned(taught: Metrics, learned: Metrics, sim: SIM) -> None:
    """Print both models' test figures, and what the solve found and proved."""
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


def draw_figures(folder: Path, sim: SIM) -> None:
    """matrices.png, and where the solver gives them gap.png and layers.png, in `folder`."""
    for name in ("gap.png", "layers.png"):  # of an earlier solve of this run
        (folder / name).unlink(missing_ok=True)
    blocks = {
        name: weight.double().cpu().numpy()
        for name, weight in sim.weights.items()
        if weight is not None
    }
    save(spy_plot(blocks), folder / "matrices.png")
    quality = sim.quality
    assert quality is not None
    if quality.report is not None:
        histories = {name: block.history for name, block in quality.report.blocks.items()}
        if any(histories.values()):
            save(gap_history(histories), folder / "gap.png")
    if quality.layer_mse:
        save(layer_errors(quality.layer_mse), folder / "layers.png")


def gap_history(histories: dict[str, list[tuple[int, float, float]]]) -> Figure:
    """The worst row's relative duality gap against the iteration, one curve a block."""
    with rc_context(STYLE):
        figure = blank_figure(4.6, 2.8)
        axes = figure.subplots()
        for (name, history), look in zip(histories.items(), (FIRST, SECOND), strict=False):
            if history:
                iterations, worst, _ = zip(*history, strict=True)
                draw_curve(axes, iterations, np.asarray(worst), _BLOCKS[name], look)
        axes.set_yscale("log")
        axes.set_xlabel("iteration")
        axes.set_ylabel("worst relative duality gap")
        axes.legend()
        return figure


def layer_errors(errors: dict[str, float]) -> Figure:
    """The mean square error of each layer's states, in the order of the network."""
    with rc_context(STYLE):
        figure = blank_figure(4.6, 0.8 + 0.35 * len(errors))
        axes = figure.subplots()
        # Points, not bars: on a logarithmic axis a length means nothing.
        axes.plot(list(errors.values()), list(errors), "o", color=FIRST["color"])
        axes.set_xscale("log")
        axes.margins(y=0.5 / len(errors))
        axes.set_xlabel("mean square error of the states")
        axes.set_ylabel("layer")
        return figure
