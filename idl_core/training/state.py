"""Everything that a training is at a moment, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from idl_core.training.callbacks import Metrics, Progress
from idl_core.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    Tensors,
    load_optimizer,
    load_weights,
    optimizer_tensors,
)
from idl_core.training.distributed import Team
from idl_core.training.tasks import Measure, Task


class NonFiniteLoss(Exception):
    """The loss, or a weight, became NaN or infinite: going on would only spread it."""

    def __init__(self, value: float, progress: Progress, what: str = "loss") -> None:
        super().__init__(
            f"non-finite {what} ({value}) at step {progress.step}, epoch {progress.pass_number}"
        )


@dataclass
class Best:
    """The weights of the best evaluation so far, on the CPU, and whether they are on disk."""

    weights: Tensors
    progress: Progress
    metrics: Metrics
    saved: bool = False

    @classmethod
    def of(cls, model: nn.Module, progress: Progress, metrics: Metrics) -> Best:
        weights = {name: t.detach().to("cpu", copy=True) for name, t in model.state_dict().items()}
        return cls(weights, replace(progress), metrics)

    def capture(self) -> Checkpoint:
        tensors = {f"model.{name}": tensor for name, tensor in self.weights.items()}
        state = {"progress": asdict(self.progress), "figures": self.metrics}
        return Checkpoint(tensors, state)


@dataclass
class TrainingState:
    """The counters, the sums behind the metrics, and the best evaluation.

    Attributes:
        window: the task's measures of the batches since the last report: this process's share.
        pass_total: the sums of the pass under way, up to the last report.
        train_metrics: over the last complete pass, or the part of the first one that was seen.
        since_best: evaluations since the best one.
    """

    progress: Progress = field(default_factory=Progress)
    window: list[Measure] = field(default_factory=list)
    pass_total: Tensor | None = None
    train_metrics: Metrics = field(default_factory=dict)
    best: Best | None = None
    since_best: int = 0

    def close_window(self, task: Task, epoch_ended: bool, team: Team) -> Metrics:
        """Metrics since the last report, of all processes."""
        sums = team.total(task.sums(self.window) if self.window else None)
        total = sums if self.pass_total is None else self.pass_total + sums
        if epoch_ended or self.progress.epoch == 0:
            self.train_metrics = task.metrics(total)
        metrics = task.metrics(sums)
        self.window = []
        self.pass_total = None if epoch_ended else total
        return metrics

    def refuse_non_finite(self, model: nn.Module) -> None:
        """Raise NonFiniteLoss if a weight is NaN or infinite: it must not reach a checkpoint."""
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NonFiniteLoss(float("nan"), self.progress, f"weight '{name}'")

    def capture(self, model: nn.Module, optimizer: torch.optim.Optimizer, team: Team) -> Checkpoint:
        """All of it, model, optimizer and random state included, as a checkpoint."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        optimizer_state, optimizer_rest = optimizer_tensors(optimizer)
        tensors |= optimizer_state
        if self.pass_total is not None:
            tensors["pass_total"] = self.pass_total
        window = self.window
        if team.count > 1:  # each process has measures and random numbers of its own
            own = [(count, tuple(part.cpu() for part in parts)) for count, parts in window]
            window = [measure for each in team.gather(own) for measure in each]
        for number, parts in enumerate(zip(*(parts for _, parts in window), strict=True)):
            tensors[f"window.{number}"] = torch.stack(parts)
        for rank, state in enumerate(team.gather(_random_state())):
            tensors |= {_of_rank(name, rank): tensor for name, tensor in state.items()}
        return Checkpoint(
            tensors,
            {
                "progress": asdict(self.progress),
                "window": [count for count, _ in window],
                "train_figures": self.train_metrics,
                "since_best": self.since_best,
                "best_step": self.best.progress.step if self.best else None,
                "optimizer": optimizer_rest,
            },
        )

    def restore(
        self,
        last: Checkpoint,
        best: Checkpoint | None,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        team: Team,
    ) -> None:
        """The reverse of `capture`. Raises: CheckpointError where it does not fit."""
        load_weights(model, last.tensors)
        try:
            load_optimizer(optimizer, last.tensors, last.state["optimizer"])
            self.progress = Progress(**last.state["progress"])
            self.train_metrics = dict(last.state["train_figures"])
            self.since_best = int(last.state["since_best"])
            self._restore_sums(last, next(model.parameters()).device)
            if team.rank:  # rank 0 answers for what all had measured
                self.window = []
            if best is not None:
                weights = {
                    name.removeprefix("model."): tensor
                    for name, tensor in best.tensors.items()
                    if name.startswith("model.")
                }
                progress = Progress(**best.state["progress"])
                self.best = Best(weights, progress, dict(best.state["figures"]), saved=True)
            _restore_random_state(last.tensors, team.rank)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint's state does not fit: {error!r}") from error

    def _restore_sums(self, last: Checkpoint, device: torch.device) -> None:
        tensors = {name: tensor.to(device, copy=True) for name, tensor in last.tensors.items()
                   if name == "pass_total" or name.startswith("window.")}  # fmt: skip
        self.pass_total = tensors.pop("pass_total", None)
        by_part = [tensors[f"window.{number}"].unbind() for number in range(len(tensors))]
        rows = zip(*by_part, strict=True)
        self.window = list(zip(last.state["window"], rows, strict=True))


def _random_state() -> Tensors:
    tensors = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _restore_random_state(tensors: Tensors, rank: int) -> None:
    """Go on with the random numbers of a rank; one that was not there before keeps its own."""
    if rank == 0 or _of_rank("random.cpu", rank) in tensors:
        torch.set_rng_state(tensors[_of_rank("random.cpu", rank)])
    device = _of_rank("random.cuda", rank)
    if device in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[device])


def _of_rank(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name
