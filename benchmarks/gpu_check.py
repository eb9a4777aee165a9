"""What a machine with a GPU has to say: tests, sanitizers, ceilings, times and launches of steps.

    bash scripts/gpu_check.sh [--minutes N] [--out FOLDER]

The parts run one after the other, tests side by side, each in processes of its own, until the time
is over. The last thing that is printed is a summary of at most 100 lines; the whole output of each
part is in the folder. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 100

Chosen = Callable[[str], bool]


@dataclass(frozen=True)
class Part:
    """One thing to find out.

    Attributes:
        name: how it is called in the summary, and its file in the folder.
        command: what is run in the root of the checkout.
        seconds: how long it may take.
        lines: how many lines of its output the summary has room for.
        wanted: which lines these are.
        obstacle: why it cannot run here, where it cannot.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    lines: int
    wanted: Chosen
    obstacle: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a part ended: "passed", "failed", "stopped" for want of time, or "not run", and why."""

    part: Part
    status: str
    seconds: float
    why: str = ""
    output: str = ""

    def lines(self) -> Iterator[str]:
        """Its share of the summary."""
        why = f": {self.why}" if self.why else ""
        yield f"{self.status:8} {self.part.name}, {self.seconds:.0f} s{why}"
        wanted = [line for line in self.output.splitlines() if self.part.wanted(line)]
        shown = wanted[-self.part.lines :]
        if len(shown) < len(wanted):
            yield f"    … {len(wanted) - len(shown)} lines before these"
        for line in shown:
            yield f"    {line[:150]}"


def of_tests(line: str) -> bool:
    """What failed or was skipped, and the counts."""
    counts = (" passed", " failed", " error", " skipped", " deselected")
    return line.startswith(("FAILED", "ERROR", "SKIPPED")) or any(
        count in line and " in " in line and line[:1].isdigit() for count in counts
    )


def of_sanitizer(line: str) -> bool:
    return "SUMMARY" in line or line.startswith("========= Error") or of_tests(line)


def everything(line: str) -> bool:
    return bool(line.strip())


def absent(*modules: str) -> str | None:
    """Why a part cannot run that needs these."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"not importable: {', '.join(missing)}" if missing else None


def sanitizer() -> str | None:
    """compute-sanitizer, on the path or where CUDA's toolkit is usually."""
    usual = (os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/usr/local/cuda", "/opt/cuda")
    places = [f"{home}/bin" for home in usual]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(places)
    )


def stages() -> Iterator[tuple[Part, ...]]:
    """Parts that may run side by side, stage by stage, the most important first."""
    tests = absent("pytest", "triton")
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfEs", "--tb=short")
    # Modules that a test file needs and this machine lacks are errors of that file alone.
    whole = (*pytest, "--continue-on-collection-errors")
    yield tuple(
        Part(f"tests/{room}", (*whole, f"tests/{room}"), 100, 12, of_tests, tests)
        for room in ("kernels", "core", "models", "training")
    )
    script = (sys.executable, "-u")
    yield (Part("ceilings", (*script, "benchmarks/gpu.py", "--ceilings"), 20, 4, everything),)
    steps = absent("triton", "safetensors")
    yield (Part("steps", (*script, "benchmarks/gpu_steps.py"), 75, 14, everything, steps),)
    launches = (*script, "benchmarks/gpu_steps.py", "--launches")
    yield (Part("launches", launches, 30, 22, everything, steps),)
    tool = sanitizer()
    obstacle = tests or (None if tool else "compute-sanitizer is not installed")
    few = "test_iterates or test_sizes or test_slow"
    files = [f"tests/kernels/test_{name}.py" for name in ("iterates", "dense", "low_rank")]
    yield tuple(
        Part(
            kind,
            (str(tool), "--tool", kind, "--error-exitcode", "1", *pytest, *files, "-x", "-k", few),
            60,
            4,
            of_sanitizer,
            obstacle,
        )
        for kind in ("memcheck", "racecheck")
    )


def run(part: Part, folder: Path, seconds: float) -> Outcome:
    """Run one part for as long as it may."""
    if part.obstacle is not None:
        return Outcome(part, "not run", 0, part.obstacle)
    if seconds < 1:
        return Outcome(part, "not run", 0, "the time was over; --minutes gives more")
    log, start = folder / f"{part.name.replace('/', '-')}.txt", time.monotonic()
    limit = min(seconds, part.seconds)
    with open(log, "w") as file:
        process = subprocess.Popen(
            part.command, cwd=ROOT, env=environment(folder, part.name), text=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
            status, why = ("passed", "") if code == 0 else ("failed", f"exit {code}, {log}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            status, why = "stopped", f"it was not done after {limit:.0f} s, {log}"
    output = log.read_text(errors="replace")
    return Outcome(part, status, time.monotonic() - start, why, output)


def environment(folder: Path, name: str) -> dict[str, str]:
    """For a part: the packages as they would be installed, from this checkout."""
    paths = folder / "path"
    paths.mkdir(exist_ok=True)
    names = {"idl_datasets": "datasets", "idl_conf": "conf"}
    for package in ("idl", "idl_core", "idl_cli", "idl_datasets", "idl_conf"):
        link = paths / package
        if not link.is_symlink():
            link.symlink_to(ROOT / names.get(package, package))
    before = os.environ.get("PYTHONPATH")
    given = {
        "PYTHONPATH": os.pathsep.join([str(paths), *([before] if before else [])]),
        "WANDB_MODE": "disabled",
    }
    if name == "memcheck":  # else torch's own allocator hides what lies beyond a tensor
        given["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    return os.environ | given


def summary(heading: str, outcomes: Sequence[Outcome], folder: Path) -> str:
    """At most MOST_LINES lines."""
    lines = [heading]
    for outcome in outcomes:
        lines += outcome.lines()
    if len(lines) >= MOST_LINES:
        lines = [*lines[: MOST_LINES - 2], f"… {len(lines) - MOST_LINES + 2} lines more"]
    return "\n".join([*lines, f"all of it: {folder}"])


def heading() -> str:
    """The card and the versions that matter."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = []
    for name in ("torch", "triton", "numpy", "torchidl", "torchdeq"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    card = torch.cuda.get_device_properties(0)
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{card.name}, capability {card.major}.{card.minor}, {card.multi_processor_count} "
        f"multiprocessors, CUDA {torch.version.cuda}; {', '.join(found)}, Python {python}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="for all of it (default 4)")
    parser.add_argument("--out", type=Path, help="a folder for all output; default: gpu_check/…")
    arguments = parser.parse_args()
    if absent("torch"):
        print("gpu_check: torch is not importable: nothing was checked.")
        return 0
    import torch

    if not torch.cuda.is_available():
        print("gpu_check: no CUDA GPU that torch can use: nothing was checked.")
        return 0
    end = time.monotonic() + 60 * arguments.minutes
    folder = arguments.out or Path("gpu_check") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for stage in stages():
        with ThreadPoolExecutor(len(stage)) as pool:
            left = end - time.monotonic()
            for outcome in pool.map(lambda part, left=left: run(part, folder, left), stage):
                outcomes.append(outcome)
                print(f"{outcome.status} {outcome.part.name}, {outcome.seconds:.0f} s", flush=True)
    text = summary(heading(), outcomes, folder)
    (folder / "summary.txt").write_text(text + "\n")
    print(f"\n{text}")
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
