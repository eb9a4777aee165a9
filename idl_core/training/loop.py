"""The training loop, readable top to bottom: `fit`.

It knows nothing of models, file formats or screens. Everything that a step depends on is a function
of the seed and the counters, or is in the checkpoint: a training that was killed and resumed ends
with the same weights, bit for bit on the CPU, as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from idl_core.training.callbacks import Callback, Metrics, Plan, Progress
from idl_core.training.checkpoint import CheckpointFolder
from idl_core.training.components import TrainingComponents
from idl_core.training.distributed import Team
from idl_core.training.evaluation import Batches, Precision, device_of, evaluate
from idl_core.training.graphs import (
    CannotCapture,
    CapturedEvaluation,
    CapturedStep,
    graphs_for,
)
from idl_core.training.rates import LearningRates
from idl_core.training.state import Best, NonFiniteLoss, TrainingState
from idl_core.training.step import EagerStep, Step
from idl_core.training.tasks import HIGHER_IS_BETTER

TICK_SECONDS = 0.25

CudaGraph = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Settings:
    """What `fit` can be told.

    Attributes:
        batch_size: samples a step; the last batch of a pass may be smaller.
        eval_batch_size: samples at once when evaluating.
        max_epochs, max_steps: whichever comes first ends the training; one of them is needed.
        eval_every: steps between evaluations; None: after every pass.
        log_every: steps between reports of training metrics (and at the end of every pass).
        checkpoint_seconds: at least this long between checkpoints; 0: at every report.
        grad_clip: largest 2-norm of the gradient of all parameters together; None: no limit.
        precision: '32', '64', or 'bf16' (autocast).
        monitor: metric of the validation split that decides which weights are best.
        patience: evaluations without a better metric before stopping early; None: never.
        seed: of the order of the samples.
        cuda_graph: whether steps are captured in CUDA graphs and replayed, each at the cost of one
            launch: 'auto' where they can be, 'on' (where it is known beforehand that they cannot
            be, `fit` raises CannotCapture), 'off'.
    """

    batch_size: int = 64
    eval_batch_size: int = 1000
    max_epochs: int | None = 10
    max_steps: int | None = None
    eval_every: int | None = None
    log_every: int = 50
    checkpoint_seconds: float = 10.0
    grad_clip: float | None = None
    precision: Precision = "32"
    monitor: str = "loss"
    patience: int | None = None
    seed: int = 0
    cuda_graph: CudaGraph = "auto"

    def total_steps(self, samples: int) -> int:
        """Steps of a whole training on `samples` samples. Raises: ValueError if without an end."""
        per_epoch = math.ceil(samples / self.batch_size)
        ends = [self.max_steps, self.max_epochs and self.max_epochs * per_epoch]
        if known := [end for end in ends if end is not None]:
            return min(known)
        raise ValueError("max_epochs or max_steps is needed")


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    Attributes:
        interrupted: `stop` ended it; the newest checkpoint holds everything to go on.
        stopped_early: patience ran out.
        progress: the counters at the end.
        train: metrics over the last complete pass, while the weights were changing.
        val: metrics of the weights that the model now holds; empty without a validation split.
        best_step: step of those weights.
        saved: the last step is on disk, or was not to be.
    """

    interrupted: bool
    stopped_early: bool
    progress: Progress
    train: Metrics
    val: Metrics = field(default_factory=dict)
    best_step: int = 0
    saved: bool = True


def fit(
    components: TrainingComponents,
    settings: Settings,
    *,
    callback: Callback | None = None,
    checkpoints: CheckpointFolder | None = None,
    resume: bool = False,
    probe: Callable[[nn.Module], Metrics] | None = None,
    stop: Callable[[], object] = lambda: False,
    team: Team | None = None,
) -> FitResult:
    """Train a model in place.

    Unless interrupted, the model ends with the weights of the best evaluation of the validation
    split, or with the last ones where there is none.

    Args:
        checkpoints: where to save; None: nowhere.
        resume: go on from the newest checkpoint there (from the start where there is none).
        probe: called at every report; its metrics join the training metrics.
        stop: asked in every step; true: save after it and return.
        team: the processes that share the work; each calls `fit` with the same arguments. Only
            rank 0 calls the callback and writes checkpoints.

    Raises: NonFiniteLoss (what was saved before stays, the best weights included), CheckpointError
        (resuming), CannotCapture (cuda_graph='on'), ValueError (settings without an end).
    """
    team = team or Team()
    if callback is None or team.rank:
        callback = Callback()
    model, count = components.model, len(components.train)
    loop = _Loop(components, settings, callback, checkpoints, team)
    team.start(model)
    if resume:
        loop.restore()
    progress, device = loop.state.progress, device_of(model)
    rates = LearningRates(components.optimizer, components.schedule)
    step, loop.evaluation = choose_how(components, rates, settings, team, callback.on_problem)
    loop.start()
    next_tick = time.monotonic() + TICK_SECONDS
    model.train()
    try:
        while not loop.finished():
            order = epoch_order(count, settings.seed, progress.epoch).to(device)
            for batches in loop.batches(order, step.most):
                done = step.run(batches, progress, bool(stop()))
                loop.state.window += done.measures
                loop.advance(batches)
                if loop.report_due():
                    loop.report(rates.at(progress.step - 1)[0], probe)
                if time.monotonic() > next_tick:
                    callback.on_tick(progress)
                    next_tick = time.monotonic() + TICK_SECONDS
                if done.stopping:
                    loop.save()
                    return loop.result(interrupted=True)
                if loop.finished():
                    break
        loop.save()
        if not loop.saved():
            loop.rescue_best()
    except NonFiniteLoss:
        loop.rescue_best()
        raise
    finally:
        rates.reset()
    loop.use_best()
    return loop.result(interrupted=False)


def choose_how(
    components: TrainingComponents,
    rates: LearningRates,
    settings: Settings,
    team: Team,
    say: Callable[[str], None],
) -> tuple[Step, Callable[[Batches], Metrics]]:
    """How steps and evaluations are run: captured in CUDA graphs or eagerly. `say` is told why not
    captured, where that is slower for it."""
    precision, size = settings.precision, settings.eval_batch_size
    eager = EagerStep(components, rates, precision, settings.grad_clip, team)

    def evaluation(val: Batches) -> Metrics:
        return evaluate(components.model, val, components.task, size, precision, team)

    if settings.cuda_graph == "off":
        return eager, evaluation
    graphs = graphs_for(components, team)
    if isinstance(graphs, str):
        if settings.cuda_graph == "on":
            raise CannotCapture(f"cuda_graph=on: {graphs}; auto captures where it can")
        if device_of(components.model).type == "cuda":
            say(f"training steps run one operation at a time: {graphs}")
        return eager, evaluation
    step = CapturedStep(eager, graphs, settings.batch_size, say)
    if components.val is None:
        return step, evaluation
    captured = CapturedEvaluation(components, components.val, graphs, size, precision, say)
    # What stops a step from being captured would stop an evaluation.
    return step, lambda val: evaluation(val) if step.given_up else captured.run()


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of `count` samples in pass `epoch`: decided by these three numbers alone."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator)


class _Loop:
    """What happens around the steps: counting, reporting, evaluating, saving."""

    def __init__(
        self,
        components: TrainingComponents,
        settings: Settings,
        callback: Callback,
        checkpoints: CheckpointFolder | None,
        team: Team,
    ) -> None:
        self.team = team
        self.model, self.val, self.task = components.model, components.val, components.task
        self.optimizer = components.optimizer
        self.settings, self.callback, self.checkpoints = settings, callback, checkpoints
        self.state = TrainingState()
        self.steps_per_epoch = math.ceil(len(components.train) / settings.batch_size)
        self.total_steps = settings.total_steps(len(components.train))
        self.saved_at = -math.inf
        self.saved_step: int | None = None
        self.epoch_ended = False
        self.evaluation: Callable[[Batches], Metrics]

    def restore(self) -> None:
        """Take up the newest checkpoint."""
        if self.checkpoints is None:
            raise ValueError("resuming needs checkpoints")
        last, best, problems = self.checkpoints.load()
        for problem in problems:
            self.callback.on_problem(problem)
        if last is not None:
            self.state.restore(last, best, self.model, self.optimizer, self.team)
            self.saved_step = None if problems else last.step

    def start(self) -> None:
        self.callback.on_start(
            Plan(
                self.total_steps,
                self.steps_per_epoch,
                self.state.progress.step,
                self.settings.batch_size,
            )
        )

    def batches(self, order: Tensor, most: int) -> Iterator[tuple[Tensor, ...]]:
        """The rest of a pass: up to `most` batches at once, none of them beyond where something is
        due, and a smaller one alone."""
        progress, size = self.state.progress, self.settings.batch_size
        number = progress.epoch
        while progress.epoch == number:
            first = progress.batch * size
            together = order[first : first + size * min(most, self.steps_until_due())]
            yield together[: max(size, len(together) // size * size)].split(size)

    def steps_until_due(self) -> int:
        """Steps until the next report, or the end."""
        progress, settings = self.state.progress, self.settings
        until = [
            self.steps_per_epoch - progress.batch,
            self.total_steps - progress.step,
            settings.log_every - progress.step % settings.log_every,
        ]
        if settings.eval_every is not None:
            until.append(settings.eval_every - progress.step % settings.eval_every)
        return max(1, min(until))

    def advance(self, batches: Sequence[Tensor]) -> None:
        """Count the steps on these batches."""
        progress = self.state.progress
        progress.step += len(batches)
        progress.batch += len(batches)
        progress.samples += sum(map(len, batches))
        self.epoch_ended = progress.batch == self.steps_per_epoch
        if self.epoch_ended:
            progress.epoch += 1
            progress.batch = 0

    def finished(self) -> bool:
        return self.state.progress.step >= self.total_steps or self.out_of_patience()

    def out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.state.since_best >= patience

    def report_due(self) -> bool:
        step, settings = self.state.progress.step, self.settings
        return (
            self.epoch_ended
            or step % settings.log_every == 0
            or step == self.total_steps
            or (settings.eval_every is not None and step % settings.eval_every == 0)
        )

    def report(self, rate: float, probe: Callable[[nn.Module], Metrics] | None) -> None:
        """Report training metrics, the last learning `rate` of the first parameters among them;
        evaluate and save where it is time to."""
        metrics = self.state.close_window(self.task, self.epoch_ended, self.team)
        if not math.isfinite(metrics["loss"]):
            raise NonFiniteLoss(metrics["loss"], self.state.progress)
        metrics["lr"] = rate
        if probe is not None:
            metrics.update(probe(self.model))
        self.callback.on_log(self.state.progress, metrics)
        if self.val is not None and self.evaluation_due():
            self.evaluate(self.val)
        if self.team.first(time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds):
            self.save()

    def evaluation_due(self) -> bool:
        step, every = self.state.progress.step, self.settings.eval_every
        at_interval = self.epoch_ended if every is None else step % every == 0
        return at_interval or step == self.total_steps

    def evaluate(self, val: Batches) -> None:
        settings, state = self.settings, self.state
        metrics = self.evaluation(val)
        if not math.isfinite(metrics["loss"]):
            raise NonFiniteLoss(metrics["loss"], state.progress)
        sign = -1.0 if settings.monitor in HIGHER_IS_BETTER else 1.0
        best = state.best
        improved = best is None or (
            sign * metrics[settings.monitor] < sign * best.metrics[settings.monitor]
        )
        if improved:
            state.refuse_non_finite(self.model)
            state.best = Best.of(self.model, state.progress, metrics)
        state.since_best = 0 if improved else state.since_best + 1
        self.callback.on_evaluation(state.progress, "val", metrics, improved)

    def save(self) -> None:
        """Write the newest state, and the best weights where they are not on disk yet."""
        # At the end of a pass, say, which also ends the training: a second time would leave two of
        # the same, and nothing to go back to.
        if self.checkpoints is None or self.saved():
            return
        self.state.refuse_non_finite(self.model)
        last = self.state.capture(self.model, self.optimizer, self.team)
        best = self.state.best
        if self.team.rank:
            return
        try:
            self.checkpoints.save(last, best.capture() if best and not best.saved else None)
        except OSError as error:  # disk full: the checkpoints before are still there
            self.callback.on_problem(f"checkpoint not written: {error}")
        else:
            if best:
                best.saved = True
            self.saved_step = self.state.progress.step
            self.callback.on_save(self.state.progress)
        self.saved_at = time.monotonic()

    def saved(self) -> bool:
        """Whether there is nothing left to save."""
        step = self.state.progress.step
        return self.checkpoints is None or self.team.first(self.saved_step == step)

    def rescue_best(self) -> None:
        """Where no more is saved: the best weights so far, which may wait in memory, go to disk."""
        best = self.state.best
        if self.team.rank == 0 and self.checkpoints and best is not None and not best.saved:
            try:
                self.checkpoints.save_best(best.capture())
            except OSError as error:
                self.callback.on_problem(f"checkpoint not written: {error}")

    def use_best(self) -> None:
        if self.state.best is not None:
            self.model.load_state_dict(self.state.best.weights)

    def result(self, *, interrupted: bool) -> FitResult:
        state = self.state
        return FitResult(
            interrupted=interrupted,
            stopped_early=self.out_of_patience(),
            progress=state.progress,
            train=state.train_metrics,
            val=state.best.metrics if state.best else {},
            best_step=state.best.progress.step if state.best else state.progress.step,
            saved=self.saved(),
        )
