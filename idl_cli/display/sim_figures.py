"""The figures of `idl sim`: matrices, duality gaps, errors by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context

from idl_cli.display.figures import FIRST, SECOND, STYLE, blank_figure, draw_curve, save, spy_plot
from idl_core.sim import SIM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLOCKS = {"AB": "rows of [A B]", "CD": "rows of [C D]"}


def draw_figures(folder: Path, sim: SIM) -> None:
    """Write matrices.png and, where the solver reports them, gap.png and layers.png to `folder`."""
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
    """Draw the worst row's relative duality gap against the iteration, one curve a block."""
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
    """Draw the mean square error of each layer's states, in the order of the network."""
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
