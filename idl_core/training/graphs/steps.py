"""Training steps as CUDA graphs: one launch for a step, or for several.

What a step depends on lies in tensors that stay where they are: the numbers of the samples, the
learning rates, the weights and the optimizer's state; what it leaves for the metrics is written to
others. Which steps are captured depends on their number and size alone: the first of a training,
in which optimizers make their state, and smaller batches run eagerly, all others in graphs, so that
a training that was killed and resumed does the same as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from idl_core.equilibrium import collected
from idl_core.training.callbacks import Progress
from idl_core.training.components import TrainingComponents
from idl_core.training.evaluation import device_of
from idl_core.training.graphs.cuda import Graphs
from idl_core.training.graphs.recording import Recording
from idl_core.training.step import EagerStep, StepResult
from idl_core.training.tasks import Measure

# Steps of the larger graph: enough that the host keeps ahead of the device.
SEVERAL = 16
# A replay may differ from an eager step by this share of the step: kernels may add in another
# order, and an optimizer as Adam makes of rounding in a gradient near 0 a step of full length.
DIFFERENCE = 1e-2


class CapturedStep:
    """Runs steps as replays of graphs, and eagerly what cannot be, which `say` is told once.

    Args:
        graphs: what captures and replays.
        batch_size: samples of a batch that is captured.
        say: called with one line where steps that should be captured go on eagerly.
    """

    most = SEVERAL

    def __init__(
        self, eager: EagerStep, graphs: Graphs, batch_size: int, say: Callable[[str], None]
    ) -> None:
        self._eager, self._graphs = eager, graphs
        self._batch_size, self._say = batch_size, say
        self._captured: dict[int, _Steps] = {}
        self.given_up = False

    def run(self, batches: Sequence[Tensor], progress: Progress, stop: bool) -> StepResult:
        measures: list[Measure] = []
        while batches:
            count = SEVERAL if len(batches) >= SEVERAL else 1
            if self.given_up or progress.step == 0 or len(batches[0]) != self._batch_size:
                count = 1
                measures += self._eager.run(batches[:1], progress, stop).measures
            else:
                measures += self._run_captured(batches[:count], progress)
            batches = batches[count:]
            progress = replace(progress, step=progress.step + count)
        return StepResult(measures, stop)

    def _run_captured(self, batches: Sequence[Tensor], progress: Progress) -> list[Measure]:
        steps = self._captured.get(len(batches))
        if steps is None:
            return self._first(batches, progress)
        steps.load(batches, progress.step)
        return steps.recording.replay()

    def _first(self, batches: Sequence[Tensor], progress: Progress) -> list[Measure]:
        """Capture so many steps; the first replay is compared with as many steps one by one."""
        steps = _Steps(self._eager, self._graphs, len(batches), self._batch_size)
        before = _Snapshot(self._eager.components, self._graphs)
        try:
            steps.load(batches, progress.step)
            with collected():  # it is the replay that is warned of
                if len(batches) == 1:
                    self._graphs.warm_up(steps.recording.work)
                    before.restore()
                steps.recording.work()
            expected = _Snapshot(self._eager.components, self._graphs)
            before.restore()
            steps.recording.capture()
            measures = steps.recording.replay()
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n")[0].split())
            why = f"they cannot be captured in a CUDA graph: {reason}"
        else:
            replayed = _Snapshot(self._eager.components, self._graphs)
            difference = expected.difference(replayed, before)
            if difference <= DIFFERENCE:
                self._captured[len(batches)] = steps
                return measures
            why = f"a replay of their CUDA graph differs from them by {difference:.1e} of the step"
        self.given_up = True
        self._captured.clear()
        self._eager.components.optimizer.zero_grad()
        before.restore()
        self._say(f"training steps run one operation at a time: {why}")
        return self._eager.run(batches, progress, False).measures


class _Steps:
    """A graph of consecutive steps, and the tensors that it reads."""

    def __init__(self, eager: EagerStep, graphs: Graphs, count: int, batch_size: int) -> None:
        self._eager, self._graphs, self._count = eager, graphs, count
        model, optimizer = eager.components.model, eager.components.optimizer
        device = device_of(model)
        self._indices = torch.zeros(count, batch_size, dtype=torch.int64, device=device)
        rates = (count, len(optimizer.param_groups))
        self._rates = torch.zeros(rates, dtype=torch.float32, device=device)
        self._loaded: list[list[float]] = []
        self.recording = Recording(self._run, graphs, model, count)

    def load(self, batches: Sequence[Tensor], step: int) -> None:
        """Set the samples and learning rates of the next run."""
        torch.stack(list(batches), out=self._indices)
        rates = [self._eager.rates.at(step + number) for number in range(self._count)]
        if rates != self._loaded:
            self._graphs.upload(rates, self._rates)
            self._loaded = rates

    def _run(self) -> list[Measure]:
        optimizer = self._eager.components.optimizer
        measures: list[Measure] = []
        optimizer.zero_grad()  # what is left would be added to
        for number in range(self._count):
            for group, rate in zip(optimizer.param_groups, self._rates[number], strict=True):
                group["lr"] = rate
            measures += self._eager.update(self._indices[number], Progress(), False).measures
        return measures


class _Snapshot:
    """A copy of all that a step changes: weights, buffers, optimizer's state, random numbers."""

    def __init__(self, components: TrainingComponents, graphs: Graphs) -> None:
        self._graphs = graphs
        model, optimizer = components.model, components.optimizer
        self._weights = list(model.parameters())
        state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        self._tensors = [*self._weights, *model.buffers(), *state]
        self._copies = [tensor.detach().clone() for tensor in self._tensors]
        self._random = graphs.random_state()

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back where it was, in place."""
        for tensor, copy in zip(self._tensors, self._copies, strict=True):
            tensor.copy_(copy)
        self._graphs.set_random_state(self._random)

    def difference(self, other: _Snapshot, before: _Snapshot) -> float:
        """2-norm of what the weights differ by, as a share of how far they went from `before`."""
        count = len(self._weights)
        weights = [snapshot._copies[:count] for snapshot in (self, other, before)]
        apart = moved = 0.0
        for one, another, start in zip(*weights, strict=True):
            apart += float((one - another).double().square().sum())
            moved += float((one - start).double().square().sum())
        return (apart / moved) ** 0.5 if moved else float(apart > 0)
