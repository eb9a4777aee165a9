"""What `idl sim` does: train or load a teacher, solve for its implicit model, evaluate both."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idl_cli.config.schema import as_plain
from idl_cli.config.sim_options import SIMConfig, SimConfig, sim_config
from idl_cli.display.sim_results import draw_figures, print_learned
from idl_cli.errors import InputError, RunFailed
from idl_cli.jobs.job import Interrupted, Job
from idl_cli.jobs.recording import open_directory, recording
from idl_cli.jobs.resume import Continuation, continuation
from idl_cli.jobs.sim_checkpoint import save_model
from idl_cli.jobs.teacher import Teacher, find_teacher, teacher_checkpoints, train_teacher
from idl_cli.processes.devices import choose_devices
from idl_cli.processes.ranks import Ranks, process_group
from idl_cli.processes.stop_signals import StopSignals
from idl_cli.record.run_directory import RunDirectory
from idl_cli.typed_words import typed_word
from idl_core import ImplicitFunctionWarning
from idl_core.peers import Peers
from idl_core.sim import SIM, NotEnoughMemory, NotRescalable, rescaled
from idl_core.sim.memory import states_bytes
from idl_core.sim.solvers import (
    ADMMMultiGPUSolver,
    ADMMSolver,
    BaseSolver,
    CVXSolver,
    LeastSquareSolver,
    ProjectedGDLowRankSolver,
    SolveProgress,
)
from idl_core.training import Metrics, Progress, Team, evaluate

SOLVERS: dict[str, Callable[..., BaseSolver]] = {
    "admm": ADMMSolver,
    "admm_multigpu": ADMMMultiGPUSolver,
    "cvx": CVXSolver,
    "least_square": LeastSquareSolver,
    "projected_gd_low_rank": ProjectedGDLowRankSolver,
}
_BATCH = 500  # samples that give states at a time


def compute(job: Job) -> float:
    """Learn, evaluate and record. Returns the figure of the test split that the run is ranked by.

    Raises: InputError, RunFailed, Interrupted (a signal; the teacher is saved).
    """
    begin = continuation(job, sim_config(job.values))
    config = begin.config
    if begin.value is not None:
        job.screen.say(f"job {job.number} was complete")
        return begin.value
    solver = _solver(config)
    ranks = Ranks.of_environment()
    if ranks is None:
        return _compute(job, begin, solver, lambda told: None)
    if not isinstance(solver, ADMMMultiGPUSolver):
        raise InputError(
            f"solver={config.solver.name} works in one process, and {ranks.launcher} started "
            f"{ranks.count} ranks: choose solver=admm_multigpu"
        )
    device = ranks.device(choose_devices(config.trainer))
    with (
        process_group(device, ranks, solver.timeout) as team,
        Peers.of_group(solver.timeout) as peers,
    ):
        if team.rank:
            return _follow(job, config, solver, device, team, peers)
        with _telling(team, peers) as tell:
            return _compute(job, begin, solver, tell)


def _compute(
    job: Job,
    begin: Continuation[SimConfig],
    solver: BaseSolver,
    tell: Callable[[Any], None],
) -> float:
    """Args: tell: see `_learn`."""
    with job.stop as stop:
        begin, teacher = find_teacher(job, begin)
        directory, resume = open_directory(
            job, begin, lambda run: teacher_checkpoints(teacher, run)
        )
        with recording(job, teacher.parts.config, directory) as callback:
            taught = train_teacher(job, teacher, callback, stop, directory, resume)
            job.screen.close()
            sim = _learn(job, begin.config.model, teacher, solver, stop, tell)
            learned = _evaluate(sim, teacher)
            place = Progress(step=job.facts.get("steps", 0), epoch=job.facts.get("epochs", 0))
            callback.on_evaluation(place, "test", learned["test"], False)
        figure = _record(job, begin.config, teacher, sim, directory, taught, learned)
        if stop() and job.number is not None:  # too late for this job, meant for the sweep
            raise Interrupted(
                "stopped after a job that was just complete", stop.exit_code, stop.received
            )
    return figure


def _record(
    job: Job,
    config: SimConfig,
    teacher: Teacher,
    sim: SIM,
    directory: RunDirectory,
    taught: Metrics,
    learned: dict[str, Metrics],
) -> float:
    """Save the model, draw, and show; returns the figure that the run is ranked by."""
    kept = save_model(job, config, teacher, sim, directory)
    try:
        draw_figures(directory.figures, sim)
    except OSError as error:  # the disk is full, say: what was learned stands without pictures
        job.screen.say(f"warning: {directory.figures} not written: {error.strerror or error}")
    assert sim.quality is not None
    test, (ranked_on, *_) = learned["test"], learned
    monitor = config.trainer.monitor
    job.facts |= {
        "parameters": sum(w.numel() for w in sim.weights.values() if w is not None),
        "ranked_by": f"{ranked_on}.{monitor}",
        **{"train": {}, "val": {}, **learned},
        "teacher": taught,
        "sim": {
            "teacher_accuracy": taught.get("accuracy"),
            "accuracy": test.get("accuracy"),
            **sim.quality.figures(),
        },
    }
    if job.number is None:
        print_learned(taught, test, sim)
        if kept:
            again = typed_word("model.init_from", directory.shown)
            print(f"{kept:,} states; fine-tune: idl train {again} optimizer.lr=1e-4")
    else:
        told = "  ".join(f"{name} {value:.4g}" for name, value in test.items())
        job.screen.say(f"job {job.number} done: test {told}")
    return learned[ranked_on][monitor]


def _solver(config: SimConfig) -> BaseSolver:
    """Raises: InputError where the solver refuses its options."""
    options = as_plain(config.solver)
    make = SOLVERS[options.pop("name")]
    try:
        return make(**options)
    except ValueError as error:
        raise InputError(f"solver={config.solver.name}: {error}") from error


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


def _learn(
    job: Job,
    settings: SIMConfig,
    teacher: Teacher,
    solver: BaseSolver,
    stop: StopSignals,
    tell: Callable[[Any], None],
) -> SIM:
    """Collect the teacher's states and solve.

    Args:
        tell: gives the other ranks of the solve the activation's name and the states.

    Raises: InputError, RunFailed, Interrupted.
    """
    train = teacher.parts.dataset.train
    count = min(len(train), settings.samples or len(train))
    weight = next(teacher.network.parameters())
    inputs = _Inputs(range(count), train.batch, weight.device, weight.dtype)
    sim = _sim(settings, teacher.config.activation, weight.device, weight.dtype)

    def on_progress(progress: SolveProgress) -> None:
        if stop():
            raise _stopped(job, stop)
        job.screen.on_solve(progress)

    solver.on_progress = on_progress
    try:
        network = _scaled(job, settings.rescale, teacher.network, sim, inputs)
        _say_memory(job, sim, network, inputs, solver)
        states = sim.get_states(network, inputs)
        tell((teacher.config.activation, states))
        with warnings.catch_warnings():
            # The report's notes, which are told below, say the same.
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


def _stopped(job: Job, stop: StopSignals) -> Interrupted:
    return Interrupted(
        f"stopped while solving; the teacher is saved, go on with: {job.going_on}",
        stop.exit_code,
        stop.received,
    )


def _follow(
    job: Job, config: SimConfig, solver: BaseSolver, device: torch.device, team: Team, peers: Peers
) -> float:
    """Take a share of the solve that rank 0 prepares and records.

    Raises: SystemExit, RunFailed (rank 0 died), Interrupted.
    """
    with job.stop as stop:

        def stop_if_asked(progress: SolveProgress | None = None) -> None:
            if stop():
                raise Interrupted("", stop.exit_code, stop.received)

        solver.on_progress = stop_if_asked
        try:
            peers.wait([0], stop_if_asked)  # it may train the teacher for hours
            if peers.heard()[0] is not None:
                nothing: tuple[str, dict[str, Any]] = ("", {})
                activation, states = team.first(nothing)
                _sim(config.model, activation, device, torch.float32).fit(solver, states)
                return math.nan
        except (NotEnoughMemory, ValueError):
            pass
        except RuntimeError as error:
            stop_if_asked()
            raise RunFailed(str(error)) from error
    raise SystemExit(2)  # rank 0 says why


@contextlib.contextmanager
def _telling(team: Team, peers: Peers) -> Iterator[Callable[[Any], None]]:
    """What gives the other ranks their part; where this one fails before, they are let go."""

    def tell(value: Any) -> None:
        peers.say("there are states")
        peers.done()
        team.first(value)

    try:
        yield tell
    finally:
        peers.done()


def _sim(settings: SIMConfig, activation: str, device: torch.device, dtype: torch.dtype) -> SIM:
    return SIM(
        activation,
        settings.kappa,
        settings.atol,
        settings.skip_layers,
        settings.standardize,
        device,
        dtype,
    )


def _scaled(job: Job, wanted: bool, network: nn.Module, sim: SIM, inputs: _Inputs) -> nn.Module:
    """The teacher with its layers in the ball, where that leaves its outputs as they are."""
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
    one = sim.get_states(network, [next(iter(inputs))[:1]])
    n, p, q = (len(one[key]) for key in "XUY")
    count = len(inputs.samples)
    states = states_bytes(n, p, q, count, one["X"].itemsize)
    said = f"{n} states, {p} inputs and {q} outputs of {count:,} samples: {_size(states)}"
    if isinstance(solver, ADMMSolver):  # of the others nobody has counted
        said += f"; solving them takes up to {_size(solver.bytes_needed(n, p, count))}"
    if isinstance(solver, ADMMMultiGPUSolver):
        said += " in each process"
    job.screen.say(said)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


class _Predictor(nn.Module):
    """A SIM as what `evaluate` takes."""

    def __init__(self, sim: SIM) -> None:
        super().__init__()
        assert sim.weights["C"] is not None
        self.where = nn.Parameter(sim.weights["C"], requires_grad=False)
        self.sim = sim

    def forward(self, inputs: Tensor) -> Tensor:
        return self.sim(inputs)


def _evaluate(sim: SIM, teacher: Teacher) -> dict[str, Metrics]:
    """Figures of the split that runs are ranked on, which comes first, and of the test split."""
    parts = teacher.parts
    data, trainer = parts.dataset, parts.config.trainer
    ranked = {"train": data.train} if data.val is None else {"val": data.val}
    return {
        name: evaluate(
            _Predictor(sim), split, parts.task, trainer.eval_batch_size, trainer.precision
        )
        for name, split in {**ranked, "test": data.test}.items()
    }
