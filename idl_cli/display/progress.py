"""Progress of a computation: bars on a terminal, plain lines where piped.

All of it goes to stderr. stdout is for results: the table at the end and, as its last line, the run
directory, so that `dir=$(idl train | tail -1)` works.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from idl_cli.display.terminal import draws
from idl_core.training.callbacks import Callback, Metrics, Plan, Progress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from idl_core.sim.solvers import SolveProgress

SECONDS_BETWEEN_LINES = 1.0
_MARKS = 240  # a minute of ticks: over its later half the pace is measured
_SHOWN = ("loss", "accuracy", "perplexity", "r2")


def make_screen(job: int | None, *, beside_others: bool = False) -> Screen:
    """The screen for stderr: drawn on a terminal, else (or under CI, NO_COLOR) plain lines.

    Args:
        job: number of a sweep's job; None for a run of its own.
        beside_others: other processes write to the same terminal: two bars would overwrite each
            other.
    """
    return DrawnScreen(job) if draws(sys.stderr) and not beside_others else Screen(job)


class Screen(Callback):
    """Plain lines: one for each evaluation, at most one a second.

    A job of a sweep writes only what it `say`s: the sweep ends in a table of all jobs.
    """

    def __init__(self, job: int | None = None) -> None:
        self.job = job
        self.plan = Plan(0, 1, 0, 1)
        self._began = self._wrote = time.monotonic()
        self._marks: list[tuple[float, int]] = []  # time and step of the newest ticks
        self._train: Metrics = {}
        self._val: Metrics = {}
        self._pending: Progress | None = None
        self._loading: set[str] = set()

    def say(self, text: str) -> None:
        """Show one line at once."""
        print(text, file=sys.stderr, flush=True)

    def loading(self, what: str, done: int, total: int | None) -> None:
        """Show what a data set is doing: downloading, decoding."""
        if what not in self._loading:
            self._loading.add(what)
            self.say(what)

    def on_start(self, plan: Plan) -> None:
        self.plan = plan
        self._began, self._marks = time.monotonic(), []
        if plan.first_step:
            self.say(f"going on after step {plan.first_step} of {plan.total_steps}")

    def on_tick(self, progress: Progress) -> None:
        self._mark(progress)
        if time.monotonic() - self._wrote > 10 * SECONDS_BETWEEN_LINES:
            self._write_line(progress)

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self._mark(progress)
        self._train = metrics
        self._pending = progress

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        if split != "val":
            return
        self._val = metrics
        if time.monotonic() - self._wrote > SECONDS_BETWEEN_LINES:
            self._write_line(progress)

    def on_problem(self, problem: str) -> None:
        self.say(f"warning: {problem}")

    def on_solve(self, progress: SolveProgress) -> None:
        """Show how many rows of a convex problem are solved, and the worst gap of the others."""
        if self.job is None and time.monotonic() - self._wrote > SECONDS_BETWEEN_LINES:
            self._wrote = time.monotonic()
            self.say(f"{_rows(progress)}: {progress.done} of {progress.rows} done{_gap(progress)}")

    def close(self) -> None:
        """End the display; a line that was held back is written."""
        if self._pending is not None:
            self._write_line(self._pending)

    def _write_line(self, progress: Progress) -> None:
        self._pending = None
        self._wrote = time.monotonic()
        if self.job is None:
            epochs = f"epoch {progress.pass_number}/{self.epochs}  step {progress.step}"
            self.say(f"{epochs}  {self.metrics}  {self.rate(progress)}  {self.left(progress)} left")

    @property
    def epochs(self) -> int:
        """Passes over the data in the whole plan, rounded up."""
        return -(-self.plan.total_steps // self.plan.steps_per_epoch)

    @property
    def metrics(self) -> str:
        """The newest metrics in one line."""
        parts = [_metrics(self._train)]
        if self._val:
            parts.append(f"val {_metrics(self._val)}")
        if "forward_iterations" in self._train:
            parts.append(f"{self._train['forward_iterations']:.0f} iterations")
        return "  ".join(part for part in parts if part)

    def rate(self, progress: Progress) -> str:
        """Samples a second since the start."""
        seconds = time.monotonic() - self._began
        done = progress.step - self.plan.first_step
        samples = min(done * self.plan.batch_size, progress.samples)
        return f"{samples / seconds:,.0f} samples/s" if seconds > 0 else ""

    def left(self, progress: Progress) -> str:
        """Time left, at the pace of late; ? before there is one.

        The first steps tell nothing: the solver's kernels are compiled in them, for many seconds.
        """
        if len(self._marks) < 3:
            return "?"
        (since, first), (until, last) = self._marks[len(self._marks) // 2 - 1], self._marks[-1]
        if last <= first:
            return "?"
        return _duration((until - since) / (last - first) * (self.plan.total_steps - progress.step))

    def _mark(self, progress: Progress) -> None:
        if not self._marks or self._marks[-1][1] < progress.step:
            self._marks = [*self._marks[-_MARKS + 1 :], (time.monotonic(), progress.step)]


class SilentScreen(Screen):
    """For ranks other than 0: rank 0 has the screen."""

    def say(self, text: str) -> None:
        pass


class DrawnScreen(Screen):
    """A bar with rate and time left, and the newest metrics below it."""

    def __init__(self, job: int | None = None) -> None:
        from rich.console import Console

        super().__init__(job)
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._what = ""

    def say(self, text: str) -> None:
        # Above the bar where there is one; not markup: paths may hold brackets.
        self._console.print(text, markup=False, soft_wrap=True)

    def loading(self, what: str, done: int, total: int | None) -> None:
        if what != self._what:
            self._end_live()
            self._what = what
            self._begin_live(what, total, transient=True)
        self._update(done, "", total)

    def on_start(self, plan: Plan) -> None:
        self._end_live()
        super().on_start(plan)
        # Replaced at the first tick, which comes when the first step is done.
        self._begin_live("compiling, first steps", plan.total_steps, transient=self.job is not None)
        self._update(plan.first_step, "")

    def on_tick(self, progress: Progress) -> None:
        self._mark(progress)
        self._show(progress)

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        super().on_log(progress, metrics)
        if progress.step == self.plan.total_steps:
            self._show(progress)

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        if split == "val":
            self._val = metrics
            self._pending = progress

    def on_solve(self, progress: SolveProgress) -> None:
        what = _rows(progress)
        if what != self._what:
            self._end_live()
            self._what = what
            self._begin_live(what, progress.rows, transient=True)
        self._update(
            progress.done, f"iteration {progress.iteration}{_gap(progress)}", progress.rows
        )

    def close(self) -> None:
        if self._pending is not None and self._live is not None:
            self._show(self._pending)
        self._pending = None
        self._end_live()

    def _show(self, progress: Progress) -> None:
        if self._bars is not None and self._task is not None:
            place = f"epoch {progress.pass_number}/{self.epochs}  {self.rate(progress)}"
            place = place if self.job is None else f"job {self.job}  {place}"
            self._bars.update(self._task, description=place, left=f"{self.left(progress)} left")
            self._update(progress.step, self.metrics)

    def _begin_live(self, what: str, total: int | None, *, transient: bool) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[left]}"), console=self._console, auto_refresh=False,
        )  # fmt: skip
        self._task = self._bars.add_task(what, total=total, left="")
        # Drawn by `_update` alone: a thread that refreshes would take time from the training.
        self._live = Live(
            self._bars, console=self._console, auto_refresh=False, transient=transient
        )
        self._live.start()

    def _update(self, done: int, metrics: str, total: int | None = None) -> None:
        from rich.console import Group
        from rich.text import Text

        if self._bars is not None and self._task is not None and self._live is not None:
            self._bars.update(self._task, completed=done, total=total or None)
            lines = (
                [self._bars, Text(metrics, style="dim", no_wrap=True, overflow="ellipsis")]
                if metrics
                else [self._bars]
            )
            self._live.update(Group(*lines), refresh=True)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = self._bars = self._task = None


def _metrics(metrics: Metrics) -> str:
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in _SHOWN if name in metrics)


def _rows(progress: SolveProgress) -> str:
    return f"rows of [{progress.block[0]} {progress.block[1]}]"


def _gap(progress: SolveProgress) -> str:
    return f", worst gap {progress.worst_gap:.1e}" if progress.worst_gap >= 0 else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
