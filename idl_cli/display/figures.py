"""Figures for a paper: learning curves, solver iterations, the spy plot.

Drawn without a display (no pyplot, so no state shared between figures), at the width of a text
column of two, in colours that colour-blind readers can distinguish.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from idl_cli.atomic_write import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from numpy.typing import NDArray

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "legend.handlelength": 2.8,  # shows the dashes
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text: journals refuse the other kind
    "svg.fonttype": "none",
    "svg.hashsalt": "idl",
}
# What differs between two drawings of the same: time, version of what draws.
_UNLIKE = {
    "png": ("Software",),
    "pdf": ("Creator", "Producer", "CreationDate"),
    "svg": ("Creator", "Date"),
}
# Blue and vermillion of Okabe and Ito's palette; a second mark (dash, shape) says the same again.
FIRST = {"color": "#0072B2", "linestyle": "-", "marker": "o", "markersize": 4.5}
SECOND = {"color": "#D55E00", "linestyle": "--", "marker": "s", "markersize": 3}

FIGURE_LABELS = {
    "loss": "loss",
    "accuracy": "accuracy (%)",
    "perplexity": "perplexity",
    "bits_per_char": "bits per character",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "mape": "mean absolute percentage error (%)",
    "r2": "$R^2$",
}
# One hue from light to dark; its lightest differs visibly from the white of a zero.
_SHADES = LinearSegmentedColormap.from_list("shades", ["#b9d3ea", "#3182bd", "#08234d"])
_IN_PERCENT = ("accuracy", "mape")

Curve = tuple[Sequence[float], Sequence[float]]  # x, y


def learning_curves(curves: Mapping[str, Mapping[str, Curve]], against: str = "epoch") -> Figure:
    """One panel a figure: {figure: {"train": (x, y), "val": (x, y)}}, with x in `against`."""
    with rc_context(STYLE):
        figure = blank_figure(3.3 * len(curves), 2.5)
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (name, by_split) in zip(panels, curves.items(), strict=True):
            percent = 100.0 if name in _IN_PERCENT else 1.0
            for split, look in (("train", FIRST), ("val", SECOND)):
                if split in by_split:
                    x, y = by_split[split]
                    label = "training" if split == "train" else "validation"
                    draw_curve(axes, x, percent * np.asarray(y, dtype=float), label, look)
            axes.set_xlabel(against)
            axes.set_ylabel(FIGURE_LABELS.get(name, name))
            if name == "loss":
                _log_if_wide(axes)
            _whole_numbers(axes)
        panels[0].legend()
        return figure


def solver_iterations(curves: Mapping[str, Curve]) -> Figure:
    """Iterations of the solver against the training step: {"forward": (x, y), "adjoint": ...}."""
    with rc_context(STYLE):
        figure = blank_figure(4.6, 2.6)
        axes = figure.subplots()
        for (label, (x, y)), look in zip(curves.items(), (FIRST, SECOND), strict=False):
            draw_curve(axes, x, np.asarray(y, dtype=float), label, look)
        axes.set_xlabel("training step")
        axes.set_ylabel("iterations to tolerance")
        axes.set_ylim(bottom=0)
        _whole_numbers(axes)
        axes.legend()
        return figure


def spy_plot(
    blocks: Mapping[str, NDArray[Any]],
    inputs: str = "input $u$",
    outputs: str = "output $\\hat y$",
) -> Figure:
    """The block matrix [[A, B], [C, D]] of an implicit model: |entry| in colour, exact zeros white.

    A (n, n), B (n, p), C (q, n), D (q, p). Rows and columns of a thin block are drawn wider than
    those of the others, or nothing of it could be seen; each block has its own count.
    """
    rows, columns = len(blocks["A"]), len(blocks["C"])
    widths = _shares(blocks["A"].shape[1], blocks["B"].shape[1], smallest=0.28)
    heights = _shares(rows, columns, smallest=0.22)
    with rc_context({**STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = blank_figure(6.6, 4.2)
        panels = figure.subplots(
            2, 2, gridspec_kw={"width_ratios": widths, "height_ratios": heights}
        )
        norm = _norm(blocks.values())
        image: ScalarMappable | None = None
        for axes, (name, block) in zip(panels.flat, blocks.items(), strict=True):
            image = _draw_block(axes, name, block, norm)
        for axes in panels[0]:
            axes.set_xticklabels([])  # the block below has the same columns
        for axes in panels[:, 1]:
            axes.set_yticklabels([])
        panels[0, 0].set_ylabel("state $x$")
        panels[1, 0].set_ylabel(outputs)
        panels[1, 0].set_xlabel("state $x$")
        panels[1, 1].set_xlabel(inputs)
        if image is not None:
            figure.colorbar(
                image, ax=panels, label="|entry|  (zero: white)", pad=0.02, fraction=0.05
            )
        return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending: PNG, PDF or SVG.

    Raises: OSError, with the picture that was there before untouched.
    """
    drawn, kind = io.BytesIO(), path.suffix.removeprefix(".")
    with rc_context(STYLE):
        figure.savefig(drawn, format=kind, metadata=dict.fromkeys(_UNLIKE[kind]))
    write_whole(path, drawn.getvalue())


def blank_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, without a display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_curve(
    axes: Axes, x: Sequence[float], y: NDArray[Any], label: str, look: Mapping[str, Any]
) -> None:
    """Draw one curve, with marks where there are few enough points."""
    # A single value is visible by its mark alone.
    marker = look["marker"] if len(x) <= 40 else ""
    axes.plot(x, y, label=label, **{**look, "marker": marker})


def _log_if_wide(axes: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > 30:
        axes.set_yscale("log")
        # Plain decimals: a loss of 0.05 is read at once, 5 × 10^-2 is not.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _whole_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _shares(first: int, second: int, smallest: float) -> tuple[float, float]:
    share = min(max(first / (first + second), smallest), 1 - smallest)
    return share, 1 - share


def _norm(blocks: Any) -> LogNorm:
    largest = max((float(np.abs(block).max()) for block in blocks if block.size), default=0.0)
    largest = largest if np.isfinite(largest) and largest > 0 else 1.0
    return LogNorm(vmin=largest * 1e-3, vmax=largest, clip=True)


def _draw_block(axes: Axes, name: str, block: NDArray[Any], norm: LogNorm) -> ScalarMappable:
    size = np.abs(np.asarray(block, dtype=float))
    nonzero = np.count_nonzero(size) / size.size if size.size else 0.0
    shape = f"{block.shape[0]}×{block.shape[1]}"
    label = f"$\\mathbf{{{name}}}$  {shape}\n{100 * nonzero:.3g} % nonzero"
    axes.set_title(label, loc="left", pad=4, fontsize=8)
    shown = np.ma.masked_equal(_largest_of_tiles(size, 600), 0.0)
    extent = (0.5, block.shape[1] + 0.5, block.shape[0] + 0.5, 0.5)  # ticks count from 1
    image = axes.imshow(
        shown, norm=norm, cmap=_SHADES, aspect="auto", interpolation="nearest", extent=extent
    )
    for axis, count in ((axes.xaxis, block.shape[1]), (axes.yaxis, block.shape[0])):
        axis.set_ticks(sorted({1, count}))
    axes.tick_params(length=2)
    return image


def _largest_of_tiles(size: NDArray[Any], most: int) -> NDArray[Any]:
    """Shrink a matrix to at most `most` rows and columns: each entry is the largest of a tile.

    Where an image has fewer dots than the matrix entries, a lone nonzero would be lost.
    """
    for axis in (0, 1):
        step = -(-size.shape[axis] // most)
        if step > 1:
            starts = np.arange(0, size.shape[axis], step)
            size = np.maximum.reduceat(size, starts, axis=axis)
    return size
