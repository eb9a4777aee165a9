"""A sweep of tiny jobs against its bare trainings in one process; `idl runs` over many runs.

python benchmarks/sweeps.py [--jobs N] [--launcher joblib|submitit_local|basic] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = "import sys; from idl_cli.main import main; sys.exit(main(sys.argv[1:]))"
EPOCHS = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--launcher", default="joblib")
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.jobs:
            sweep_against_bare(folder, options.jobs, options.launcher)
        if options.runs:
            listing(folder, options.runs)


def sweep_against_bare(folder: Path, jobs: int, launcher: str) -> None:
    bare, losses = bare_trainings(jobs)
    seeds = "seed=" + ",".join(str(seed) for seed in range(jobs))
    words = [f"trainer.max_epochs={EPOCHS}", seeds, "hydra.sweep.dir=sweep"]
    whole = timed(folder, "train", "-m", f"hydra/launcher={launcher}", *words)
    ends = {
        int(path.parent.name): json.loads(path.read_text())
        for path in folder.glob("sweep/*/summary.json")
    }
    completed = [end["seed"] for end in ends.values() if end["status"] == "completed"]
    exact = sum(ends[job]["test"]["loss"] == losses[job] for job in range(jobs) if job in ends)
    print(f"{jobs} jobs by {launcher}: {len(completed)} completed, {len(set(completed))} different")
    print(f"{exact} of them with the bare training's test loss to the last bit")
    more = whole - bare
    print(f"sweep {whole:.1f} s, bare trainings in one process {bare:.1f} s")
    print(f"{more:+.1f} s, {1000 * more / jobs:+.0f} ms a job")


def bare_trainings(jobs: int) -> tuple[float, list[float]]:
    """Seconds of the same trainings one after another, imports and data included; test losses."""
    began = time.perf_counter()
    import torch

    from idl_core.models.implicit import ImplicitModel
    from idl_core.training import Classification, Settings, TrainingComponents, evaluate, fit
    from idl_datasets import load

    task, losses = Classification(), []
    for seed in range(jobs):
        data = load("digits", val_fraction=0.1, seed=seed)
        torch.manual_seed(seed)
        model = ImplicitModel(64, 10, 100)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
        settings = Settings(max_epochs=EPOCHS, seed=seed)
        fit(TrainingComponents(model, task, optimizer, data.train, data.val), settings)
        losses.append(evaluate(model, data.test, task, 1000)["loss"])
    return time.perf_counter() - began, losses


def listing(folder: Path, runs: int) -> None:
    """Time `idl runs` over copies of one run."""
    timed(folder, "train", "trainer.max_epochs=1", "hydra.run.dir=first")
    for number in range(runs):
        shutil.copytree(folder / "first", folder / "runs" / "train" / f"run_{number}")
    for words in ((), ("--where", "model.hidden_dim>=100", "--sort", "-test.accuracy"), ("--csv",)):
        seconds = min(timed(folder, "runs", *words) for _ in range(3))
        print(f"idl runs {' '.join(words)} over {runs} runs: {seconds:.2f} s, best of 3")


def timed(folder: Path, *words: str) -> float:
    """Seconds of one `idl` command in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
