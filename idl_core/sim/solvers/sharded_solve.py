"""One block of rows solved by all processes of the default group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from idl_core.sim.memory import prefers_data
from idl_core.sim.solvers.admm_rows import ADMMSettings, OnCheck, RowAnswers
from idl_core.sim.solvers.elastic import Penalty
from idl_core.sim.solvers.gram import Gram
from idl_core.sim.solvers.row_blocks import LiveColumns
from idl_core.sim.solvers.sharded_gram import Samples, sharded_moments


@dataclass(frozen=True)
class Job:
    """What to solve for.

    Attributes:
        states: n, leading columns of the data.
        kappa: radius of the ball, or None.
        penalty, settings: of the problem and of the loop.
        batch: rows solved together by one process; fixed, so that answers do not depend on the
            number of processes.
        dtype: of the work.
    """

    states: int
    kappa: float | None
    penalty: Penalty
    settings: ADMMSettings
    batch: int
    dtype: torch.dtype


def sharded_solve(
    samples: Samples, job: Job, device: torch.device, on_check: OnCheck | None = None
) -> list[RowAnswers]:
    """All rows' answers, on every process. Samples are shared for the moments, rows for the solve.

    Every process of the default group must call it with the same samples and job.
    """
    m, width = samples.data.shape
    if prefers_data(m, width):
        # The data are smaller than what would be reduced: each process takes them whole.
        data = torch.as_tensor(samples.data.copy()).to(device, job.dtype)
        target = torch.as_tensor(samples.target.copy()).to(device, job.dtype)
        gram = Gram(data=data)
        h, zz = target.T @ data, (target * target).sum(0)
    else:
        matrix, h, zz = sharded_moments(samples, device, job.dtype)
        gram = Gram(matrix=matrix, samples=m)
    live = LiveColumns(gram, job.states, job.kappa, job.penalty)
    rank, world = dist.get_rank(), dist.get_world_size()
    answers = []
    for index, first in enumerate(range(0, len(zz), job.batch)):
        rows = slice(first, first + job.batch)
        if index % world == rank:
            part = live.solve(h[rows].clone(), zz[rows].clone(), job.settings, on_check)
        else:
            empty = torch.empty_like(zz[rows])
            part = RowAnswers(torch.empty_like(h[rows]), empty, empty.clone(), empty.long())
        answers.append(part)
    for index, part in enumerate(answers):
        for tensor in (part.v, part.objective, part.gap, part.iterations):
            dist.broadcast(tensor, index % world)
        box = [part.history]
        dist.broadcast_object_list(box, index % world, device=device)
        part.history = box[0]
    return answers
