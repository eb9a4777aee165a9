"""Whole training steps on a GPU through `fit`, against torchidl's own loop: milliseconds a step.

    python benchmarks/gpu_steps.py [--launches] [--seconds N]

One line a case: ours eager and captured (cuda_graph=off and auto), torchidl with its data on the
card and fused Adam, the ratio and what it is to reach; the iterations and the worst residual of the
last solve, so that nothing is faster for having stopped early. With --launches instead the kernels
of a captured step of the first case and their times, by torch.profiler. Without a GPU it says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core import ImplicitFunctionWarning, ImplicitModel, ImplicitRNN
from idl_core.training import (
    TASKS,
    Callback,
    Metrics,
    Progress,
    Settings,
    TrainingComponents,
    fit,
)

# So low that after thousands of steps the equilibria are still those of the case.
LEARNING_RATE = 1e-7
KAPPA = 0.99
REPORT_EVERY = 64
PEER = importlib.util.find_spec("torchidl") is not None


@dataclass(frozen=True)
class Case:
    """A model's sizes and what its step is to be: so many times as fast as torchidl's."""

    name: str
    target: float
    sizes: tuple[int, ...]
    slow: bool = False


CASES = (
    Case("784, 100, 10, 64", 40, (784, 100, 10, 64)),
    Case("3072, 300, 10, 512", 15, (3072, 300, 10, 512)),
    Case("3072, 1024, 10, 4096", 2.5, (3072, 1024, 10, 4096)),
    Case("784, 100, 10, 64, uniform A", 40, (784, 100, 10, 64), slow=True),
    Case("RNN 256 x 59, 22/20", 100, (256, 59, 22, 20)),
)


class OnCard:
    """Samples on the card, as `fit` takes them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x.cuda(), y.cuda()

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.x.index_select(0, index), self.y.index_select(0, index)


class Clock(Callback):
    """Seconds a step between reports, which read what the card has done; `at` is told each step."""

    def __init__(self, at: Callable[[int], None] = lambda step: None) -> None:
        self.rates: list[float] = []
        self.problems: list[str] = []
        self._before: tuple[int, float] | None = None
        self._at = at

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        torch.cuda.synchronize()
        now = time.perf_counter()
        if self._before is not None:
            step, then = self._before
            self.rates.append((now - then) / (progress.step - step))
        self._at(progress.step)
        self._before = progress.step, time.perf_counter()

    def on_problem(self, problem: str) -> None:
        self.problems.append(problem)

    def median(self) -> float:
        """Without the first two reports: warm-up, captures, clocks that rise."""
        return statistics.median(self.rates[2:] or self.rates)


def is_sequence(case: Case) -> bool:
    return case.name.startswith("RNN")


def samples(case: Case) -> OnCard:
    """Sixteen batches."""
    generator = torch.Generator().manual_seed(0)
    if is_sequence(case):
        m, T, *_ = case.sizes
        x = torch.randn(16 * m, T, 1, generator=generator)
        return OnCard(x, torch.randn(16 * m, 1, generator=generator))
    p, _, q, m = case.sizes
    x = torch.randn(16 * m, p, generator=generator)
    return OnCard(x, torch.randint(q, (16 * m,), generator=generator))


def batch_size(case: Case) -> int:
    return case.sizes[0] if is_sequence(case) else case.sizes[3]


def models(case: Case) -> tuple[nn.Module, nn.Module | None]:
    """Ours and, where it is importable, torchidl's, with the same weights."""
    torch.manual_seed(0)
    if is_sequence(case):
        _, _, hidden, states = case.sizes
        own: nn.Module = ImplicitRNN(1, 1, states, hidden)
    else:
        p, n, q, _ = case.sizes
        own = ImplicitModel(p, q, n, kappa=KAPPA)
        with torch.no_grad():
            if case.slow:
                A = torch.rand(n, n)
                own.A.copy_(A * (KAPPA / A.sum(1, keepdim=True)))
            else:  # within the ball, so that both are the same model
                own.A.copy_(own.effective_A())
    return own.cuda(), peer(case, own)


def peer(case: Case, own: nn.Module) -> nn.Module | None:
    if not PEER:
        return None
    if is_sequence(case):
        from torchidl.implicit_rnn_model import ImplicitRNN as PeerRNN

        _, _, hidden, states = case.sizes
        model: nn.Module = PeerRNN(1, 1, states, hidden)
    else:
        import torchidl

        p, n, q, _ = case.sizes
        model = torchidl.ImplicitModel(p, q, n)
    model.load_state_dict({name: t.cpu() for name, t in own.state_dict().items()})
    return model.cuda()


def ours(case: Case, cuda_graph: str, steps: int, clock: Clock) -> nn.Module:
    model, _ = models(case)
    task = TASKS["regression" if is_sequence(case) else "classification"]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    settings: Any = Settings(
        batch_size=batch_size(case), max_epochs=None, max_steps=steps, log_every=REPORT_EVERY,
        checkpoint_seconds=1e9, cuda_graph=cuda_graph,
    )  # fmt: skip
    # One long pass: the sixteen batches again and again.
    data = samples(case)
    data.x, data.y = (t.repeat(8, *[1] * (t.dim() - 1)) for t in (data.x, data.y))
    fit(TrainingComponents(model, task, optimizer, data), settings, callback=clock)
    return model


def theirs(case: Case, seconds: float) -> float:
    """torchidl's step as its own loop has it, data on the card, fused Adam: seconds."""
    _, model = models(case)
    assert model is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    data, size = samples(case), batch_size(case)
    loss_of = F.mse_loss if is_sequence(case) else F.cross_entropy
    order = torch.randperm(len(data), device="cuda")
    rates, number, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        torch.cuda.synchronize()
        start, rounds = time.perf_counter(), 8
        for _ in range(rounds):
            first = number % 16 * size
            inputs, targets = data.batch(order[first : first + size])
            optimizer.zero_grad()
            loss_of(model(inputs), targets).backward()
            optimizer.step()
            number += 1
        torch.cuda.synchronize()
        rates.append((time.perf_counter() - start) / rounds)
    return statistics.median(rates[1:])


def steps_for(case: Case, cuda_graph: str, seconds: float) -> int:
    """How many steps take about so long."""
    clock = Clock()
    ours(case, cuda_graph, 2 * REPORT_EVERY, clock)
    return max(4, min(60, int(seconds / clock.rates[-1] / REPORT_EVERY))) * REPORT_EVERY


def row(case: Case, seconds: float) -> str:
    found: dict[str, float] = {}
    said: list[str] = []
    for cuda_graph in ("off", "auto"):
        clock = Clock()
        model = ours(case, cuda_graph, steps_for(case, cuda_graph, seconds), clock)
        found[cuda_graph] = clock.median()
        said += clock.problems
    solved = model.last_solution  # type: ignore[union-attr]
    residual = max(float(one.residual.max()) for one in (solved.forward, solved.adjoint))
    iterations = [int(one.iterations.max()) for one in (solved.forward, solved.adjoint)]
    converged = all(bool(one.converged.all()) for one in (solved.forward, solved.adjoint))
    text = f"{case.name:30} {1e3 * found['off']:9.3f} {1e3 * found['auto']:9.3f}"
    if PEER:
        other = theirs(case, seconds)
        text += f" {1e3 * other:9.3f} {other / found['auto']:7.1f}x {case.target:6.1f}x"
    else:
        text += f" {'-':>9} {'-':>8} {case.target:6.1f}x"
    state = "converged" if converged else "NOT CONVERGED"
    text += f"  {iterations[0]}/{iterations[1]} iterations, residual {residual:.1e}, {state}"
    return "\n".join([text, *(f"  {line}" for line in said)])


def launches(case: Case) -> None:
    """Kernels of a captured step, by time."""
    from torch.profiler import ProfilerActivity, profile

    profiler = profile(activities=[ProfilerActivity.CUDA])
    first, last = 4 * REPORT_EVERY, 6 * REPORT_EVERY

    def at(step: int) -> None:
        if step == first:
            profiler.start()
        elif step == last:
            profiler.stop()

    clock = Clock(at)
    ours(case, "auto", 6 * REPORT_EVERY, clock)
    times: dict[str, list[float]] = defaultdict(list)
    for event in profiler.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name].append(event.device_time)
    steps = last - first
    total = sum(map(sum, times.values())) / steps
    count = sum(map(len, times.values())) / steps
    print(
        f"{case.name}: {count:.1f} kernels and copies a captured step, {total:.0f} us of the card"
    )
    for line in clock.problems:
        print(line)
    for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))[:18]:
        print(f"{sum(each) / steps:8.1f} us in {len(each) / steps:5.2f}  {name[:90]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--launches", action="store_true", help="the kernels of a captured step")
    parser.add_argument("--seconds", type=float, default=1.5, help="about, of each timing")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU that torch can use: there is nothing to time here.")
        return 0
    warnings.filterwarnings("ignore", category=ImplicitFunctionWarning)
    warnings.filterwarnings("ignore", module="torchidl")
    if arguments.launches:
        launches(CASES[0])
        return 0
    print(
        f"{'ms a step':30} {'eager':>9} {'captured':>9} {'torchidl':>9} {'ratio':>8} {'reach':>7}"
    )
    if not PEER:
        print("torchidl is not importable: no ratios")
    for case in CASES:
        print(row(case, arguments.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
