"""The same algorithm as `ADMMSolver`, over several GPUs or several CPU processes."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from idl_core.sim.regenerated_states import regenerated
from idl_core.sim.solvers.admm import ADMMSolver, finish
from idl_core.sim.solvers.base import Array, States, Weights, device_of, kappa_of
from idl_core.sim.solvers.distributed.factor import Samples
from idl_core.sim.solvers.distributed.launch import launch
from idl_core.sim.solvers.distributed.solve import Job, sharded_solve, solve_alone
from idl_core.sim.solvers.interior_point.block import RowAnswers
from idl_core.sim.solvers.problem.report import SolveReport


class ADMMMultiGPUSolver(ADMMSolver):
    """`ADMMSolver` over torch.distributed.

    Processes share the samples for the QR factorisation, and the rows for the solve. In a process
    group that exists already (torchrun, SLURM), every process calls `solve` with the same states
    and gets the whole answer. Otherwise torch's elastic launcher starts `devices` processes on this
    machine: one a GPU over NCCL, or on the CPU over gloo, with `threads` threads each; for one
    device none is started. The answer does not depend on the number of processes: chunks of samples
    and batches of rows are fixed, and factors are stacked in order.

    Args:
        gpu_ids: GPUs to use; None takes all there are, and none are CPU processes.
        devices: number of processes at most; None takes one a GPU, or one a processor. There are
            no more than batches of rows.
        timeout: seconds that a process may show no sign of life; how long it works is not bounded.
        threads: CPU threads a process.
        batch_feature_size: rows that one process solves together.
        options: those of `ADMMSolver`.

    Raises:
        NotEnoughMemory: before anything is started, where the processes together will not fit.
        RuntimeError: a worker died or failed; the message names its rank and the cause. What
            `on_progress` raises ends all workers, too.
    """

    def __init__(
        self,
        gpu_ids: Sequence[int | torch.device] | None = None,
        devices: int | None = None,
        timeout: float = 1800.0,
        threads: int = 1,
        batch_feature_size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(batch_feature_size=batch_feature_size, **options)
        if devices is not None and devices < 1:
            raise ValueError(f"devices must be at least 1, not {devices!r}")
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, not {timeout!r}")
        self.gpu_ids = [] if gpu_ids is None else [_gpu_index(gpu) for gpu in gpu_ids]
        if gpu_ids is None and torch.cuda.is_available():
            self.gpu_ids = list(range(torch.cuda.device_count()))
        if self.gpu_ids and devices is not None:
            if gpu_ids is not None and devices > len(self.gpu_ids):
                raise ValueError(f"devices is {devices}, but gpu_ids names {len(self.gpu_ids)}")
            self.gpu_ids = self.gpu_ids[:devices]
        self.devices = len(self.gpu_ids) or devices or os.cpu_count() or 1
        self.timeout, self.threads = timeout, threads

    def solve(
        self, X: Array, U: Array, Z: Array, Y: Array, model_config: Mapping[str, Any]
    ) -> Weights:
        states = States.of(X, U, Z, Y)
        joined = dist.is_available() and dist.is_initialized()
        device = device_of(model_config) if joined else torch.device("cpu")
        self._refuse_if_too_large(states, device, joined)
        self.report = SolveReport(type(self).__name__)
        kappa = kappa_of(model_config) if self.well_pose else None
        targets = {"AB": (states.Z, kappa), "CD": (states.Y, None)}
        alone = not joined and self.processes(max(len(states.X), len(states.Y))) == 1
        if alone and self.gpu_ids:
            device = torch.device("cuda", self.gpu_ids[0])
        solve = self._here if joined or alone else self._in_processes
        if self.regen_states:
            [(A, B)] = solve(states, {"AB": targets.pop("AB")}, device)
            states = dataclasses.replace(states, X=regenerated(A, B, states.U, model_config))
            [(C, D)] = solve(states, targets, device)
        else:
            (A, B), (C, D) = solve(states, targets, device)
        assert self.report is not None
        self.report.warn_of_shortfalls()
        return A, B, C, D

    def processes(self, rows: int) -> int:
        """How many processes are started: no more than there are batches of rows."""
        assert self.batch_feature_size is not None
        return min(self.devices, max(1, -(-rows // self.batch_feature_size)))

    def _refuse_if_too_large(self, states: States, device: torch.device, joined: bool) -> None:
        (n, m), p = states.X.shape, len(states.U)
        if joined:
            # Each has a GPU of its own; torchrun says how many share the memory of a machine.
            here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) if device.type == "cpu" else 1
            self.refuse_if_too_large(n, p, m, device, here)
            return
        count = self.processes(max(n, len(states.Y)))
        for gpu in self.gpu_ids[:count]:
            self.refuse_if_too_large(n, p, m, torch.device("cuda", gpu))
        if not self.gpu_ids:
            self.refuse_if_too_large(n, p, m, device, count)

    def _job(self, block: str, states: States, kappa: float | None) -> Job:
        assert self.batch_feature_size is not None
        return Job(
            block,
            len(states.X),
            kappa,
            self.penalty(block),
            self.limits,
            self.batch_feature_size,
            self.timeout,
        )

    def _here(
        self,
        states: States,
        targets: dict[str, tuple[Array, float | None]],
        device: torch.device,
    ) -> list[tuple[Array, Array]]:
        """Solve blocks in this process: one of the default group, or alone."""
        if not (dist.is_available() and dist.is_initialized()):
            solve, threads = solve_alone, torch.get_num_threads()
            torch.set_num_threads(self.threads)
        else:
            solve, threads = sharded_solve, None
        try:
            return self._blocks_here(solve, states, targets, device)
        finally:
            if threads is not None:
                torch.set_num_threads(threads)

    def _blocks_here(
        self,
        solve: Callable[..., list[RowAnswers]],
        states: States,
        targets: dict[str, tuple[Array, float | None]],
        device: torch.device,
    ) -> list[tuple[Array, Array]]:
        data = np.concatenate([states.X, states.U]).T
        pairs = []
        for block, (target, kappa) in targets.items():
            started = time.perf_counter()
            job = self._job(block, states, kappa)
            answers = solve(Samples(data, target.T, self.dtype), job, device, self.on_progress)
            pairs.append(finish(self, block, answers, states, target, kappa, started))
        return pairs

    def _in_processes(
        self,
        states: States,
        targets: dict[str, tuple[Array, float | None]],
        device: torch.device,
    ) -> list[tuple[Array, Array]]:
        """Solve blocks with processes of our own, which end before this returns or raises."""
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="idl-admm-") as name:
            folder = Path(name)
            np.save(folder / "data.npy", np.concatenate([states.X, states.U]).T)
            blocks = []
            for block, (target, kappa) in targets.items():
                np.save(folder / f"{block}.npy", np.ascontiguousarray(target.T))
                job = dataclasses.asdict(self._job(block, states, kappa))
                job["dtype"] = str(self.dtype).removeprefix("torch.")
                blocks.append(job)
            job = {
                "blocks": blocks,
                "threads": self.threads,
                "timeout": self.timeout,
                "gpu_ids": self.gpu_ids,
            }
            rows = max(len(target) for target, _ in targets.values())
            launch(folder, job, self.processes(rows), self.on_progress)
            found = {block: _read(folder, block) for block in targets}
        pairs = []
        for block, (target, kappa) in targets.items():
            pairs.append(finish(self, block, [found[block]], states, target, kappa, started))
            started = time.perf_counter()  # both blocks ran in one launch: its time counts once
        return pairs


def _gpu_index(gpu: int | torch.device) -> int:
    return gpu if isinstance(gpu, int) else (gpu.index or 0)


def _read(folder: Path, block: str) -> RowAnswers:
    """The answers that rank 0 wrote."""
    v, objective, gap, iterations = (
        torch.from_numpy(np.load(folder / f"{block}_{field}.npy", allow_pickle=False))
        for field in ("v", "objective", "gap", "iterations")
    )
    answers = RowAnswers(v, objective, gap, iterations)
    histories = json.loads((folder / f"{block}_history.json").read_text())
    answers.history = [(check[0], check[1], check[2]) for part in histories for check in part]
    return answers
