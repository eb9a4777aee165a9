"""One block of rows solved by all processes of the default group."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from idl_core.peers import Peers
from idl_core.sim.solvers.distributed.factor import Samples, sharded_factor
from idl_core.sim.solvers.interior_point.block import BlockSolver, RowAnswers
from idl_core.sim.solvers.interior_point.solve import Limits
from idl_core.sim.solvers.problem.penalty import Penalty
from idl_core.sim.solvers.problem.report import OnProgress, SolveProgress

_TELL_SECONDS = 0.25  # between two looks at how far the others are


@dataclass(frozen=True)
class Job:
    """What to solve for.

    Attributes:
        block: "AB" or "CD".
        states: n, leading columns of the data.
        kappa: radius of the ball, or None.
        penalty: of the problem.
        limits: when a row is done.
        batch: rows solved together by one process; fixed, so that answers do not depend on the
            number of processes.
        timeout: seconds that a process may show no sign of life.
    """

    block: str
    states: int
    kappa: float | None
    penalty: Penalty
    limits: Limits
    batch: int
    timeout: float


def sharded_solve(
    samples: Samples, job: Job, device: torch.device, on_progress: OnProgress | None = None
) -> list[RowAnswers]:
    """All rows' answers, on every process. Samples are shared for the factor, rows for the solve.

    Every process of the default group must call it with the same samples and job.

    Args:
        on_progress: told how far all processes are; what it raises ends the solve here.

    Raises:
        PeerLost: another process failed or died.
    """
    data, targets = sharded_factor(samples, device)
    solver = BlockSolver(data, job.states, job.kappa, job.penalty)
    count = len(targets.rest)
    batches = [slice(first, first + job.batch) for first in range(0, count, job.batch)]
    with Peers.of_group(job.timeout) as peers:
        watch = _Watch(peers, job.block, count, on_progress)
        own: dict[int, RowAnswers] = {}
        for index in range(peers.rank, len(batches), peers.count):
            rows = batches[index]
            own[index] = solver.solve(targets.rows(rows), job.limits, watch.on_check)
            watch.solved += len(targets.rest[rows])
        # No collective until all are done: it would end those who still work.
        peers.done()
        peers.wait(range(peers.count), watch.tell)
        watch.tell(at_end=True)
    width = samples.data.shape[1]
    return [_shared(own.get(i), i, targets.rest[rows], width) for i, rows in enumerate(batches)]


def solve_alone(
    samples: Samples, job: Job, device: torch.device, on_progress: OnProgress | None = None
) -> list[RowAnswers]:
    """The same answers by this process, which is in no group."""
    data, targets = sharded_factor(samples, device)
    solver = BlockSolver(data, job.states, job.kappa, job.penalty)
    count, answers = len(targets.rest), list[RowAnswers]()
    for first in range(0, count, job.batch):

        def on_check(iteration: int, gap: Tensor, done: Tensor, before: int = first) -> None:
            if on_progress is not None:
                ended, worst = before + int(done.sum()), float(gap.max())
                on_progress(SolveProgress(job.block, count, ended, iteration, worst))

        part = targets.rows(slice(first, first + job.batch))
        answers.append(solver.solve(part, job.limits, on_check))
    return answers


def _shared(own: RowAnswers | None, index: int, like: Tensor, width: int) -> RowAnswers:
    """The answers of a batch, of which one process has `own`, on all of them."""
    part = own
    if part is None:
        v, empty = like.new_empty(len(like), width), torch.empty_like(like)
        part = RowAnswers(v, empty, empty.clone(), empty.long())
    source = index % dist.get_world_size()
    for tensor in (part.v, part.objective, part.gap, part.iterations):
        dist.broadcast(tensor, source)
    box = [part.history]
    dist.broadcast_object_list(box, source, device=like.device)
    part.history = box[0]
    return part


class _Watch:
    """Tells how far all processes are: each says of its own rows what it knows."""

    def __init__(self, peers: Peers, block: str, rows: int, on_progress: OnProgress | None) -> None:
        self.peers, self.block, self.rows, self.on_progress = peers, block, rows, on_progress
        self.solved = 0  # rows in batches that this process is done with
        self._told = -_TELL_SECONDS

    def on_check(self, iteration: int, gap: Tensor, done: Tensor) -> None:
        """What the loop over a batch of rows calls."""
        worst = float(gap.max()) if len(gap) else 0.0
        self.peers.say((self.solved + int(done.sum()), iteration, worst))
        self.tell()

    def tell(self, at_end: bool = False) -> None:
        """Pass on how far all are, unless that was done a moment ago."""
        if self.on_progress is None or not (
            at_end or time.monotonic() - self._told >= _TELL_SECONDS
        ):
            return
        self._told = time.monotonic()
        said = [each for each in self.peers.heard() if each is not None] or [(0, 0, 0.0)]
        solved, iterations, worst = zip(*said, strict=True)
        done = self.rows if at_end else sum(solved)
        self.on_progress(SolveProgress(self.block, self.rows, done, max(iterations), max(worst)))
