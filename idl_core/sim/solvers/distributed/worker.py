"""The process that `ADMMMultiGPUSolver` starts, one a rank: reads a job, solves its share."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from idl_core.sim.solvers.distributed.factor import Samples
from idl_core.sim.solvers.distributed.launch import PROGRESS, STOP
from idl_core.sim.solvers.distributed.solve import Job, sharded_solve
from idl_core.sim.solvers.interior_point.solve import Limits
from idl_core.sim.solvers.problem.penalty import Penalty
from idl_core.sim.solvers.problem.report import SolveProgress


@record
def main(folder: str) -> None:
    """Solve every block of the job in `folder`; rank 0 writes the answers there."""
    path = Path(folder)
    job = json.loads((path / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cpu")
    if job["gpu_ids"]:
        device = torch.device("cuda", job["gpu_ids"][local])
        torch.cuda.set_device(device)
    backend = "nccl" if job["gpu_ids"] else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=job["timeout"]))
    for block in job["blocks"]:
        _solve(path, block, device)
    dist.barrier()


def _solve(path: Path, block: dict[str, Any], device: torch.device) -> None:
    name, leads = block["block"], dist.get_rank() == 0
    data = np.load(path / "data.npy", mmap_mode="r", allow_pickle=False)
    target = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    job = Job(
        name,
        block["states"],
        block["kappa"],
        Penalty(**block["penalty"]),
        Limits(**block["limits"]),
        block["batch"],
        block["timeout"],
    )

    def tell(progress: SolveProgress) -> None:
        if (path / STOP).exists():
            raise SystemExit("stopped")
        draft = path / f"{PROGRESS}.part"
        draft.write_text(json.dumps(dataclasses.asdict(progress)))
        draft.replace(path / PROGRESS)

    answers = sharded_solve(
        Samples(data, target, getattr(torch, block["dtype"])), job, device, tell if leads else None
    )
    if leads:
        for field in ("v", "objective", "gap", "iterations"):
            whole = torch.cat([getattr(part, field) for part in answers])
            np.save(path / f"{name}_{field}.npy", whole.cpu().numpy(), allow_pickle=False)
        (path / f"{name}_history.json").write_text(json.dumps([p.history for p in answers]))
