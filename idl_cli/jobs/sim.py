"""What `idl sim` does: train or load a teacher, solve for its implicit model, evaluate both."""

from __future__ import annotations

import math
import shutil

from torch import Tensor, nn

from idl_cli.config.build_sim import build_solver
from idl_cli.config.sim_config import SimConfig, sim_config
from idl_cli.display.sim_figures import draw_figures
from idl_cli.display.sim_table import print_learned
from idl_cli.errors import InputError
from idl_cli.jobs.job import Job
from idl_cli.jobs.recording import open_directory, recording
from idl_cli.jobs.resume import Continuation, continuation
from idl_cli.jobs.sim_solve import check_solvable, solve, solve_as_rank
from idl_cli.jobs.teacher import Teacher, find_teacher, teacher_checkpoints, train_teacher
from idl_cli.processes.devices import choose_devices
from idl_cli.processes.ranks import JoinedRanks, Ranks, join_ranks
from idl_cli.record.run_directory import RunDirectory
from idl_cli.record.sim_checkpoint import save_sim_model
from idl_cli.typed_words import typed_word
from idl_core.sim import SIM
from idl_core.sim.solvers import ADMMMultiGPUSolver, BaseSolver
from idl_core.training import Metrics, Progress, evaluate


def compute(job: Job) -> float:
    """Learn, evaluate and record. Returns the metric that the run is ranked by.

    Raises: InputError, RunFailed, Interrupted (a signal; the teacher is saved).
    """
    begin = continuation(job.request, sim_config(job.request.values))
    config = begin.config
    if begin.value is not None:
        job.screen.say(f"job {job.number} was complete")
        return begin.value
    solver = build_solver(config.solver)
    ranks = Ranks.of_environment()
    if ranks is None:
        return _compute(job, begin, solver, None)
    if not isinstance(solver, ADMMMultiGPUSolver):
        raise InputError(
            f"solver={config.solver.name} works in one process, and {ranks.launcher} started "
            f"{ranks.count} ranks: choose solver=admm_multigpu"
        )
    device = ranks.device(choose_devices(config.trainer))
    with join_ranks(device, ranks, solver.timeout) as joined:
        if joined is not None and joined.rank:
            solve_as_rank(job, config, solver, device, joined)
            return math.nan
        return _compute(job, begin, solver, joined)


def _compute(
    job: Job, begin: Continuation[SimConfig], solver: BaseSolver, ranks: JoinedRanks | None
) -> float:
    with job.stop as stop:
        begin, teacher = find_teacher(job, begin)
        check_solvable(begin.config.model, teacher, solver)
        directory, resume = open_directory(
            job, begin, teacher.setup, lambda run: teacher_checkpoints(teacher, run)
        )
        with recording(job, teacher.setup.config, directory) as callback:
            taught = train_teacher(job, teacher, callback, stop, directory, resume)
            job.screen.close()
            sim = solve(job, begin.config.model, teacher, solver, stop, ranks)
            learned = _evaluate(sim, teacher)
            place = Progress(step=job.summary.steps, epoch=job.summary.epochs)
            callback.on_evaluation(place, "test", learned["test"], False)
        _record(job, begin.config, teacher, sim, directory, taught, learned)
        job.stop_sweep(stop)
        ranked_on = next(iter(learned))
        return learned[ranked_on][begin.config.trainer.monitor]


def _record(
    job: Job,
    config: SimConfig,
    teacher: Teacher,
    sim: SIM,
    directory: RunDirectory,
    taught: Metrics,
    learned: dict[str, Metrics],
) -> None:
    """Save the model, draw its figures, fill in the summary, and show it all."""
    kept = _save(job, config, teacher, sim, directory)
    try:
        draw_figures(directory.figures, sim)
    except OSError as error:  # the disk is full, say: what was learned stands without pictures
        job.screen.say(f"warning: {directory.figures} not written: {error.strerror or error}")
    assert sim.quality is not None
    summary, test = job.summary, learned["test"]
    summary.parameters = sum(w.numel() for w in sim.weights.values() if w is not None)
    summary.ranked_by = f"{next(iter(learned))}.{config.trainer.monitor}"
    summary.train, summary.val, summary.test = (
        learned.get(split, {}) for split in ("train", "val", "test")
    )
    summary.teacher = taught
    summary.sim = {
        "teacher_accuracy": taught.get("accuracy"),
        "accuracy": test.get("accuracy"),
        **sim.quality.figures(),
    }
    if job.number is not None:
        job.say_test_metrics()
        return
    print_learned(taught, test, sim)
    if kept:
        again = typed_word("model.init_from", directory.shown)
        print(f"{kept:,} states; fine-tune: idl train {again} optimizer.lr=1e-4")


def _save(
    job: Job, config: SimConfig, teacher: Teacher, sim: SIM, directory: RunDirectory
) -> int | None:
    """Save the model as a checkpoint. Returns: its number of states; None: it is not saved."""
    activation, dataset = teacher.config.activation, teacher.setup.dataset
    try:
        return save_sim_model(directory.checkpoints, sim, config.model, activation, dataset)
    except ValueError as error:
        job.screen.say(f"no checkpoint: {error}")
        shutil.rmtree(directory.checkpoints, ignore_errors=True)  # of an earlier solve of this run
        return None


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
    """Metrics of the split that runs are ranked on, which comes first, and of the test split."""
    setup = teacher.setup
    data, trainer = setup.dataset, setup.config.trainer
    ranked = {"train": data.train} if data.val is None else {"val": data.val}
    return {
        name: evaluate(
            _Predictor(sim), split, setup.task, trainer.eval_batch_size, trainer.precision
        )
        for name, split in {**ranked, "test": data.test}.items()
    }
