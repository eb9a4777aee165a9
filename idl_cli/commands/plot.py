"""`idl plot run=<dir>`: the figures of a run, into its figures/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idl_cli.display.curves import iterations, learning
from idl_cli.errors import InputError, close_match
from idl_cli.plain_arguments import parse_settings, wants_help
from idl_cli.record.finder import existing_run
from idl_cli.record.metrics_reader import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USAGE = """\
usage: idl plot run=<dir> [format=png|pdf|svg]

Draws the figures of a training run into <dir>/figures/ and prints their paths (format=pdf and svg
are vector graphics, for a paper):

  learning_curves.png     loss and accuracy of training and validation
  solver_iterations.png   iterations of the equilibrium solver, forward and adjoint
  matrices.png            the spy plot of [[A, B], [C, D]], of the best checkpoint

A run gets those that apply to its model and that it has recorded something for. forecast.png, of
a series, is there since the training; idl eval run=<dir> draws it anew.
"""


_FORMATS = ("png", "pdf", "svg")


def main(arguments: Sequence[str]) -> int:
    """Run `idl plot`. Raises: InputError for what is no run, empty or damaged."""
    if wants_help(arguments):
        print(USAGE, end="")
        return 0
    plain, settings = parse_settings(arguments, keys=("run", "format"))
    kind = settings.pop("format", _FORMATS[0])
    if kind not in _FORMATS:
        hint = close_match(kind, _FORMATS)
        raise InputError(f"format={kind}: choose from {', '.join(_FORMATS)}.{hint}")
    typed = [*settings.values(), *plain]  # idl plot <dir> is meant the same
    if len(typed) != 1:
        raise InputError("idl plot takes one run: idl plot run=<dir>")
    run = existing_run(typed[0])
    drawn = _draw_curves(run, kind)
    drawn += _draw_matrices(run, kind)
    if not drawn:
        raise InputError(
            f"run={typed[0]} has nothing to draw: no training metrics in metrics.jsonl, and no "
            "checkpoint of an implicit model; idl plot takes a run of idl train"
        )
    return 0


def _draw_curves(run: Path, kind: str) -> list[Path]:
    splits = read_metrics(run / "metrics.jsonl")
    curves, against = learning(splits)
    solves = iterations(splits.get("train", []))
    drawn = []
    if curves:
        from idl_cli.display.figures import learning_curves

        drawn.append(_save(learning_curves(curves, against), run / f"learning_curves.{kind}"))
    if solves:
        from idl_cli.display.figures import solver_iterations

        drawn.append(_save(solver_iterations(solves), run / f"solver_iterations.{kind}"))
    return drawn


def _draw_matrices(run: Path, kind: str) -> list[Path]:
    if not any((run / "checkpoints").glob("*.safetensors")):
        return []
    from idl_cli.record.saved_model import saved_blocks

    saved = saved_blocks(run)
    if saved is None:
        return []
    from idl_cli.display.figures import spy_plot

    return [_save(spy_plot(saved.blocks, saved.inputs, saved.outputs), run / f"matrices.{kind}")]


def _save(figure: Figure, wanted: Path) -> Path:
    from idl_cli.display.figures import save

    path = wanted.parent / "figures" / wanted.name
    try:
        path.parent.mkdir(exist_ok=True)
        save(figure, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write '{path}' ({reason})") from error
    print(path, flush=True)
    return path
