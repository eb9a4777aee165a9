"""One block of rows solved by all processes of the default group."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from idl_core.peers import Peers
from idl_core.sim.memory import prefers_data
from idl_core.sim.solvers.alternating_direction.loop import ADMMSettings, RowAnswers
from idl_core.sim.solvers.alternating_direction.presolve import Presolve
from idl_core.sim.solvers.distributed.moments import Samples, sharded_moments
from idl_core.sim.solvers.problem.gram import Gram
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
        penalty, settings: of the problem and of the loop.
        batch: rows solved together by one process; fixed, so that answers do not depend on the
            number of processes.
        timeout: seconds that a process may show no sign of life.
        dtype: of the work.
    """

    block: str
    states: int
    kappa: float | None
    penalty: Penalty
    settings: ADMMSettings
    batch: int
    timeout: float
    dtype: torch.dtype


def sharded_solve(
    samples: Samples, job: Job, device: torch.device, on_progress: OnProgress | None = None
) -> list[RowAnswers]:
    """All rows' answers, on every process. Samples are shared for the moments, rows for the solve.

    Every process of the default group must call it with the same samples and job.

    Args:
        on_progress: told how far all processes are; what it raises ends the solve here.

    Raises:
        PeerLost: another process failed or died.
    """
    m, width = samples.data.shape
    if prefers_data(m, width):
        # The data are smaller than what would be reduced: each process takes them whole.
        data, target = samples.take(slice(None), device, job.dtype)
        gram = Gram(data=data)
        h, zz = target.T @ data, (target * target).sum(0)
    else:
        matrix, h, zz = sharded_moments(samples, device, job.dtype)
        # Copies of columns are told from the data only (`span`): read where that is needed.
        every = torch.arange(width, device=device)
        origin = (lambda: samples.take(slice(None), device, job.dtype)[0]), every
        gram = Gram(matrix=matrix, samples=m, origin=origin)
    presolved = Presolve(gram, job.states, job.kappa, job.penalty)
    batches = [slice(first, first + job.batch) for first in range(0, len(zz), job.batch)]
    with Peers.of_group(job.timeout) as peers:
        watch = _Watch(peers, job.block, len(zz), on_progress)
        own: dict[int, RowAnswers] = {}
        for index in range(peers.rank, len(batches), peers.count):
            rows = batches[index]
            own[index] = presolved.solve(
                h[rows].clone(), zz[rows].clone(), job.settings, watch.on_check
            )
            watch.solved += len(zz[rows])
        # No collective until all are done: it would end those who still work.
        peers.done()
        peers.wait(range(peers.count), watch.tell)
        watch.tell(at_end=True)
    return [_shared(own.get(i), i, h[rows], zz[rows], device) for i, rows in enumerate(batches)]


def _shared(
    own: RowAnswers | None, index: int, h: Tensor, zz: Tensor, device: torch.device
) -> RowAnswers:
    """The answers of a batch, of which one process has `own`, on all of them."""
    part = own
    if part is None:
        empty = torch.empty_like(zz)
        part = RowAnswers(torch.empty_like(h), empty, empty.clone(), empty.long())
    source = index % dist.get_world_size()
    for tensor in (part.v, part.objective, part.gap, part.iterations):
        dist.broadcast(tensor, source)
    box = [part.history]
    dist.broadcast_object_list(box, source, device=device)
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
