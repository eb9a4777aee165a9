"""The solver over several processes: the same answers, and failures that name their rank."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from problems import make
from reference import objective, optimum

from idl.sim.solvers import ADMMMultiGPUSolver, SolveProgress
from idl_core.sim.memory import NotEnoughMemory


def solver(devices: int, **options: float) -> ADMMMultiGPUSolver:
    return ADMMMultiGPUSolver([], devices, lambda_y=1e-3, lambda_z=1e-3, timeout=60, **options)  # type: ignore[arg-type]


def workers() -> set[int]:
    """Worker processes alive on this machine that this process started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
            parent = int((path.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if b"distributed.worker" in command and parent == os.getpid():
            found.add(int(path.parent.name))
    return found


def test_any_number_of_ranks_gives_the_same_answer() -> None:
    # More samples than one chunk, more rows than one batch.
    case = make("", 10, 12, 3, 1300)
    found = [
        solver(devices, batch_feature_size=4).solve(*case.states(), case.config)
        for devices in (1, 2, 3)
    ]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)
    A, B, *_ = found[0]
    best = optimum(case.X, case.U, case.Z, 1e-3, 0.0, case.kappa)
    value = objective(case.X, case.U, case.Z, A, B, 1e-3, 0.0)
    assert (value - best <= 1e-5 * np.maximum(best, 0.5e-6 * (case.Z**2).sum(1))).all()
    assert not workers()


def test_a_worker_that_dies_is_named_and_no_other_is_left() -> None:
    case = make("", 60, 300, 3, 1200, strength=1e-6)
    tested = ADMMMultiGPUSolver(
        [], 2, batch_feature_size=30, timeout=60, gap_tol=1e-13, max_iter=10**7
    )
    killed = threading.Event()

    def kill_one() -> None:
        for _ in range(300):
            alive = sorted(workers())
            if len(alive) == 2:
                time.sleep(0.5)
                os.kill(alive[1], signal.SIGKILL)
                killed.set()
                return
            time.sleep(0.1)

    thread = threading.Thread(target=kill_one)
    thread.start()
    with pytest.raises(RuntimeError, match=r"rank \d of 2 failed: it was ended by SIGKILL"):
        tested.solve(*case.states(), case.config)
    thread.join()
    assert killed.is_set()
    assert not workers()


def test_a_group_that_exists_is_joined(tmp_path: Path) -> None:
    case = make("", 6, 8, 2, 40)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        told = list[SolveProgress]()
        tested = solver(5)
        tested.on_progress = told.append
        joined = tested.solve(*case.states(), case.config)
    finally:
        dist.destroy_process_group()
    ends = {progress.block: progress for progress in told}
    assert {block: (end.done, end.rows) for block, end in ends.items()} == {
        "AB": (6, 6),
        "CD": (2, 2),
    }
    best = optimum(case.X, case.U, case.Z, 1e-3, 0.0, case.kappa)
    value = objective(case.X, case.U, case.Z, *joined[:2], 1e-3, 0.0)
    assert (value - best <= 1e-5 * np.maximum(best, 0.5e-6 * (case.Z**2).sum(1))).all()


def test_what_its_progress_raises_ends_the_solve_and_its_workers() -> None:
    case = make("", 12, 30, 3, 100)
    tested = ADMMMultiGPUSolver([], 2, batch_feature_size=6, gap_tol=1e-17, max_iter=10**7)
    told = list[SolveProgress]()

    def stop(progress: SolveProgress) -> None:
        told.append(progress)
        raise InterruptedError("enough")

    tested.on_progress = stop
    with pytest.raises(InterruptedError, match="enough"):
        tested.solve(*case.states(), case.config)
    assert len(told) == 1
    # Of [A B] or, where the interior point ends with that before the first look, of [C D].
    assert (told[0].block, told[0].rows) in {("AB", 12), ("CD", 3)}
    assert not workers()


def test_the_memory_of_all_processes_is_counted_and_none_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make("", 24, 12, 3, 300)
    tested = ADMMMultiGPUSolver([], 16, batch_feature_size=10)
    assert tested.processes(24) == 3  # batches of rows
    assert tested.processes(1000) == 16
    needed = tested.bytes_needed(24, 12, 300)
    started = list[int]()

    class Started(Exception):
        pass

    def launch(folder: Path, job: object, processes: int, told: object) -> None:
        started.append(processes)
        raise Started

    monkeypatch.setattr("idl_core.sim.solvers.admm_multi_gpu.launch", launch)
    monkeypatch.setattr("idl_core.sim.memory.available_bytes", lambda device: 3 * needed - 1)
    with pytest.raises(NotEnoughMemory, match=r"in 3 processes .* fewer processes"):
        tested.solve(*case.states(), case.config)
    monkeypatch.setattr("idl_core.sim.memory.available_bytes", lambda device: 3 * needed)
    with pytest.raises(Started):
        tested.solve(*case.states(), case.config)
    assert started == [3]


@pytest.mark.parametrize(("option", "value"), [("devices", 0), ("timeout", 0.0)])
def test_options_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        ADMMMultiGPUSolver([], **{option: value})  # type: ignore[arg-type]
