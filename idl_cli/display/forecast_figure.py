"""The figure of a forecast: the whole series, and below it a part drawn large."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from idl_cli.display.figures import STYLE

# Black, vermillion and blue of Okabe and Ito's palette; dashes say the same again.
_LOOKS = {
    "truth": {"color": "#000000", "linestyle": "-", "linewidth": 1.0},
    "forecast": {"color": "#D55E00", "linestyle": "--", "linewidth": 1.1},
    "persistence": {"color": "#0072B2", "linestyle": ":", "linewidth": 1.0},
}


def forecast_figure(
    lines: Mapping[str, np.ndarray], what: str, horizon: int, close_up: tuple[int, int]
) -> Figure:
    """Draw truth, forecast and persistence, (m,) by name, in the series' own units.

    Args:
        what: name of the series.
        horizon: steps that the forecasts look ahead.
        close_up: first and last + 1 of the samples that are drawn large.
    """
    first, last = close_up
    count = len(lines["truth"])
    with rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1)
        for name in ("truth", "forecast"):  # persistence could not be distinguished from the truth
            above.plot(np.arange(count), lines[name], label=name, **_LOOKS[name])
        above.axvspan(first, last - 1, color="#999999", alpha=0.25, linewidth=0)
        steps = "1 step" if horizon == 1 else f"{horizon} steps"
        above.set_title(f"{what}, {steps} ahead; the shaded part is drawn large below", loc="left")
        for name, values in lines.items():
            below.plot(np.arange(first, last), values[first:last], label=name, **_LOOKS[name])
        below.set_xlabel("sample")
        for axes in (above, below):
            axes.set_ylabel(what)
            axes.margins(x=0.01)
        below.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.28))
        return figure
