"""The QR factorisation of data whose samples several processes share.

Chunks of samples are factored by one process each, and their factors stacked in order by all (TSQR:
Demmel, Grigori, Hoemmen and Langou, SIAM J. Sci. Comput. 34, 2012). Chunks are fixed, so that the
result is the same to the last bit for any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from idl_core.sim.solvers.problem.compressed_data import (
    CompressedData,
    Targets,
    compress,
    stacked,
)

Array: TypeAlias = np.ndarray[Any, Any]

_CHUNK = 4  # samples in a chunk, in multiples of the number of columns


@dataclass(frozen=True)
class Samples:
    """Rows are samples: data M (m, D) and targets (m, k); arrays or memory maps.

    Attributes:
        dtype: in which the numbers are held before the work in float64.
    """

    data: Array
    target: Array
    dtype: torch.dtype = torch.float64

    def take(self, rows: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """Data and targets of some samples, copied, in float64.

        Into torch's own memory, whose alignment is always the same: results of BLAS depend on it.
        """
        data, target = torch.tensor(self.data[rows]), torch.tensor(self.target[rows])
        return data.to(device, self.dtype).double(), target.to(device, torch.float64)


def sharded_factor(samples: Samples, device: torch.device) -> tuple[CompressedData, Targets]:
    """The compressed data and targets, on every process of the default group; all must call it.

    Where there is no group, this process alone.
    """
    m, width = samples.data.shape
    size = _CHUNK * width
    if m <= size:
        data, target = samples.take(slice(None), device)
        return compress(data, target.T.contiguous())
    joined = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
    count = samples.target.shape[1]
    chunks = [slice(first, min(first + size, m)) for first in range(0, m, size)]
    own = {i: stacked(*samples.take(chunks[i], device)) for i in range(rank, len(chunks), world)}
    options: dict[str, Any] = {"device": device, "dtype": torch.float64}
    factor, z = torch.zeros(0, width, **options), torch.zeros(0, count, **options)
    for index, chunk in enumerate(chunks):
        rows = min(chunk.stop - chunk.start, width)
        empty = torch.empty(rows, width, **options), torch.empty(rows, count, **options)
        part = tuple(piece.contiguous() for piece in own.get(index, empty))
        for piece in part if world > 1 else ():
            dist.broadcast(piece, index % world)
        factor, z = stacked(torch.cat([factor, part[0]]), torch.cat([z, part[1]]))
    rest = _squares(samples, chunks, device) - (z * z).sum(0)
    return CompressedData.of(factor, m), Targets(z.T.contiguous(), rest.clamp(min=0))


def _squares(samples: Samples, chunks: list[slice], device: torch.device) -> Tensor:
    """(k,) ‖z‖², summed in one order by every process."""
    total = torch.zeros(samples.target.shape[1], device=device, dtype=torch.float64)
    for chunk in chunks:
        target = torch.tensor(samples.target[chunk]).to(device, torch.float64)
        total += (target * target).sum(0)
    return total
