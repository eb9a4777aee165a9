"""The solve of `idl sim`: from a teacher's states to an implicit model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idl_cli.config.build_sim import build_sim
from idl_cli.config.sim_config import SIMConfig, SimConfig
from idl_cli.errors import InputError, RunFailed
from idl_cli.jobs.job import Job
from idl_cli.jobs.teacher import Teacher
from idl_cli.processes.ranks import JoinedRanks
from idl_cli.processes.stop_signals import Interrupted, StopSignals
from idl_core import ImplicitFunctionWarning
from idl_core.sim import SIM, NotEnoughMemory, NotRescalable, rescaled
from idl_core.sim.memory import require, states_bytes
from idl_core.sim.solvers import ADMMMultiGPUSolver, ADMMSolver, BaseSolver, SolveProgress

_BATCH = 500  # samples that give states at a time


def check_solvable(settings: SIMConfig, teacher: Teacher, solver: BaseSolver) -> None:
    """Refuse, before the teacher is trained, what could not be solved for once it is.

    Raises: InputError where the teacher has no such states, or they would not fit in memory.
    """
    inputs = _inputs(settings, teacher)
    sim = build_sim(settings, teacher.config.activation, inputs.device, inputs.dtype)
    try:
        n, p, q, itemsize = _sizes(sim, teacher.network, inputs)
        held = states_bytes(n, p, q, len(inputs.samples), itemsize) + (n + q) * (n + p) * itemsize
        advice = "lower model.samples, or make it smaller"
        require(held, torch.device("cpu"), f"a teacher of {n:,} states", advice)
    except (NotEnoughMemory, ValueError) as error:
        raise InputError(str(error)) from error
    rank = getattr(solver, "rank", None)
    if rank is not None and rank > n:
        raise InputError(f"solver.rank={rank}: at most the teacher's number of states, {n}")


def solve(
    job: Job,
    settings: SIMConfig,
    teacher: Teacher,
    solver: BaseSolver,
    stop: StopSignals,
    ranks: JoinedRanks | None,
) -> SIM:
    """Collect the teacher's states and solve for the model, with the other ranks if there are any.

    Raises: InputError, RunFailed, Interrupted.
    """
    inputs = _inputs(settings, teacher)
    sim = build_sim(settings, teacher.config.activation, inputs.device, inputs.dtype)

    def on_progress(progress: SolveProgress) -> None:
        if stop():
            raise _stopped(job, stop)
        job.screen.on_solve(progress)

    solver.on_progress = on_progress
    try:
        network = _scaled(job, settings.rescale, teacher.network, sim, inputs)
        _say_memory(job, sim, network, inputs, solver)
        states = sim.get_states(network, inputs)
        if ranks is not None:
            ranks.give((teacher.config.activation, states))
        with warnings.catch_warnings():
            # The report's notes, which are shown below, say the same.
            warnings.filterwarnings("ignore", r"\w+ fell short", ImplicitFunctionWarning)
            sim.fit(solver, states)
    except NotEnoughMemory as error:
        raise InputError(f"{error} (model.samples, solver.batch_feature_size)") from error
    except ValueError as error:
        raise InputError(str(error)) from error
    except RuntimeError as error:
        if stop():
            raise _stopped(job, stop) from None
        if not isinstance(solver, ADMMMultiGPUSolver):
            raise
        raise RunFailed(str(error)) from error
    finally:
        job.screen.close()
    assert sim.quality is not None
    for note in sim.quality.report.notes if sim.quality.report is not None else ():
        job.screen.say(note)
    return sim


def solve_as_rank(
    job: Job, config: SimConfig, solver: BaseSolver, device: torch.device, ranks: JoinedRanks
) -> None:
    """Take a share of the solve that rank 0 prepares and records.

    Raises: SystemExit, RunFailed (rank 0 died), Interrupted.
    """
    with job.stop as stop:

        def stop_if_asked(progress: SolveProgress | None = None) -> None:
            if stop():
                raise Interrupted("", stop.exit_code, stop.received)

        solver.on_progress = stop_if_asked
        try:
            share: tuple[Any, dict[str, Any]] | None = ranks.receive(stop_if_asked)
            if share is not None:
                activation, states = share
                build_sim(config.model, activation, device, torch.float32).fit(solver, states)
                return
        except (NotEnoughMemory, ValueError):
            pass
        except (RuntimeError, RunFailed) as error:
            stop_if_asked()
            raise RunFailed(str(error)) from error
    raise SystemExit(2)  # rank 0 says why


@dataclass
class _Inputs:
    """Batches of the first samples of the train split; iterable any number of times."""

    samples: range
    batch: Callable[[Tensor], tuple[Tensor, Tensor]]
    device: torch.device
    dtype: torch.dtype
    size: int = _BATCH

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, len(self.samples), self.size):
            index = torch.arange(first, min(first + self.size, len(self.samples)))
            yield self.batch(index.to(self.device))[0].to(self.dtype)


def _inputs(settings: SIMConfig, teacher: Teacher) -> _Inputs:
    """What the teacher is given to collect its states."""
    train = teacher.setup.dataset.train
    count = min(len(train), settings.samples or len(train))
    weight = next(teacher.network.parameters())
    return _Inputs(range(count), train.batch, weight.device, weight.dtype)


def _sizes(sim: SIM, network: nn.Module, inputs: _Inputs) -> tuple[int, int, int, int]:
    """States n, inputs p and outputs q of a teacher, and the bytes of a number."""
    one = sim.get_states(network, [next(iter(inputs))[:1]])
    n, p, q = (len(one[key]) for key in "XUY")
    return n, p, q, one["X"].itemsize


def _stopped(job: Job, stop: StopSignals) -> Interrupted:
    return Interrupted(
        f"stopped while solving; the teacher is saved, go on with: {job.resume_command}",
        stop.exit_code,
        stop.received,
    )


def _scaled(job: Job, wanted: bool, network: nn.Module, sim: SIM, inputs: _Inputs) -> nn.Module:
    """The teacher rescaled so that its layers' norms are at most the radius, with equal outputs."""
    if not wanted or not sim.radius:
        return network
    try:
        return rescaled(network, sim.radius, next(iter(inputs)))
    except NotRescalable as error:
        job.screen.say(f"the teacher's layers are not scaled: {error}")
        return network


def _say_memory(
    job: Job, sim: SIM, network: nn.Module, inputs: _Inputs, solver: BaseSolver
) -> None:
    """Say what there is to solve, and what that takes, before any of it is allocated."""
    n, p, q, itemsize = _sizes(sim, network, inputs)
    count = len(inputs.samples)
    states = states_bytes(n, p, q, count, itemsize)
    said = f"{n} states, {p} inputs and {q} outputs of {count:,} samples: {_size(states)}"
    if isinstance(solver, ADMMSolver):  # of the others nobody has counted
        said += f"; solving them takes up to {_size(solver.bytes_needed(n, p, count))}"
    if isinstance(solver, ADMMMultiGPUSolver):
        said += " in each process"
    job.screen.say(said)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
