"""kernel=auto against the best of what else there is on a CPU, over a grid of models and batches.

    python benchmarks/auto_grid.py [--cases REGEX ...] [--threads T] [--seconds S] [--no-peers]

The grid: n states x m samples x weights x {inference, training} x φ x p inputs, q = 10, float32.
Weights: initial ones; random ones with every row sum of |A| at κ = 0.99 (ball); uniform on [0, 1]
with every row sum at κ (equal), or scaled by one number so that the largest is (unequal).
Inference is one call `model(U)` without gradients; training is a call and the gradients of all
parameters, from a gradient of the output that makes max|Cᵀ grad| = 1: then an absolute tolerance,
as of torchidl, and a relative one, as of the others, say the same.

Contenders: auto and torch, the project's two kernels; a plain Picard loop in torch; torchidl 0.0.4
and torchdeq 0.1.0. Those that miss the tolerance, forward or in their gradients against float64,
count for nothing (-). They are timed in turns, and the medians of the rounds are compared.
A contender whose first call takes three times as long as the fastest is not called again (>).

Each row: milliseconds of all, and auto / best of the others. Names of cases for --cases are as in
the table: `relu n300 m16 p100 unequal training`.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from grid_contenders import (
    PHI,
    TOL,
    PlainLoop,
    TooSlow,
    project_model,
    slope_of,
    torchdeq_candidates,
    torchidl_model,
)
from peers import require
from timing import conditions
from torch import Tensor

from idl_core import ImplicitFunctionWarning
from idl_core.equilibrium import Anderson, fixed_point

KAPPA, Q = 0.99, 10
WEIGHTS = ("initial", "ball", "equal", "unequal")
# A contender that takes that many times as long as the fastest is not timed any further.
HOPELESS = 3.0
# Samples on which a contender shows that it reaches the tolerances.
SHOWN = 16


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    phi: str
    n: int
    m: int
    p: int
    weights: str
    mode: str

    def __str__(self) -> str:
        return f"{self.phi} n{self.n} m{self.m} p{self.p} {self.weights} {self.mode}"


def grid() -> Iterator[Case]:
    sizes, batches = (10, 100, 300, 1000, 2000), (1, 16, 64, 256, 1000)
    for n in sizes:
        for weights in WEIGHTS:
            for m in batches:
                for mode in ("inference", "training"):
                    yield Case("relu", n, m, 100, weights, mode)
    for p, n, m, weights in (
        (784, 100, 16, "initial"),
        (784, 100, 64, "ball"),
        (784, 300, 1, "initial"),
        (784, 300, 256, "unequal"),
        (784, 1000, 64, "initial"),
    ):
        for mode in ("inference", "training"):
            yield Case("relu", n, m, p, weights, mode)
    for phi in ("tanh", "gelu"):
        for n, m, weights in (
            (10, 16, "initial"),
            (100, 1, "ball"),
            (100, 64, "unequal"),
            (300, 1, "initial"),
            (300, 16, "unequal"),
            (300, 256, "initial"),
            (1000, 1, "initial"),
            (1000, 64, "ball"),
        ):
            for mode in ("inference", "training"):
                yield Case(phi, n, m, 100, weights, mode)


@lru_cache(maxsize=2)
def weights_of(n: int, p: int, kind: str, phi: str) -> dict[str, Tensor]:
    """A (n, n) a little inside the ball, so that rounding makes no package project it once more."""
    generator = torch.Generator().manual_seed(n)
    normal = lambda *shape: torch.randn(*shape, generator=generator) / n  # noqa: E731
    B, C, D = normal(n, p), normal(Q, n), normal(Q, p)
    # Where φ is steeper than 1, the project's ball is smaller.
    radius = KAPPA / (1.1290 if phi == "gelu" else 1.0) * (1 - 1e-6)
    if kind in ("initial", "ball"):
        A = normal(n, n)
        sums = A.abs().sum(1, keepdim=True)
        # Of few states some initial weights are outside.
        A = A * (radius / sums if kind == "ball" else min(1.0, radius / float(sums.max())))
    else:
        A = torch.rand(n, n, generator=generator)
        sums = A.sum(1, keepdim=True)
        A = A * (radius / (sums if kind == "equal" else sums.max()))
    return {"A": A, "B": B, "C": C, "D": D}


def batch_of(case: Case, weights: dict[str, Tensor], m: int) -> tuple[Tensor, Tensor]:
    """U (m, p) and the gradient (m, q) of the output."""
    generator = torch.Generator().manual_seed(1)
    U = torch.randn(m, case.p, generator=generator)
    grad = torch.randn(m, Q, generator=generator)
    return U, grad / float((grad @ weights["C"]).abs().max())


def call_of(model: Any, mode: str, U: Tensor, grad: Tensor) -> Callable[[], Any]:
    if mode == "inference":
        return lambda: _infer(model, U)
    parameters = list(model.parameters())
    return lambda: torch.autograd.grad(model(U), parameters, grad)


def _infer(model: Any, U: Tensor) -> Tensor:
    with torch.no_grad():
        return model(U)


class Exact:
    """Equilibrium and gradients in float64, for the samples on which contenders are judged."""

    def __init__(self, case: Case, weights: dict[str, Tensor]) -> None:
        self.U, self.grad = batch_of(case, weights, min(case.m, SHOWN))
        self.A, self.B, C, _ = (value.double() for value in weights.values())
        self.phi = PHI[case.phi]
        Z = self.U.double() @ self.B.T
        X = self._solve(lambda X: self.phi(torch.addmm(Z, X, self.A.T)), self.phi(Z))
        X = self.phi(torch.addmm(Z, X, self.A.T))
        slope = slope_of(case.phi, torch.addmm(Z, X, self.A.T))
        G = self.grad.double() @ C
        V = self._solve(lambda V: slope * (V @ self.A + G), slope * G)
        self.of_A, self.of_B = V.T @ X, V.T @ self.U.double()
        self.limit = math.inf
        plain = PlainLoop(weights, case.phi)
        self.limit = 10 * max(1e-6, self.gradient_error(plain))

    @staticmethod
    def _solve(f: Callable[[Tensor], Tensor], x0: Tensor) -> Tensor:
        tol = 1e-12 * max(1.0, float(x0.abs().max()))
        return fixed_point(f, x0, Anderson(tol=tol)).value

    def residual_is_within(self, X: Tensor) -> bool:
        """In float64, of float32 states: with room for the rounding of the sums."""
        X, Z = X.double(), self.U.double() @ self.B.T
        residual = (self.phi(torch.addmm(Z, X, self.A.T)) - X).abs().amax(1)
        bound = X.abs().amax(1) * 8 * torch.finfo(torch.float32).eps
        return bool((residual <= 1.1 * bound.clamp(min=TOL)).all())

    def gradient_error(self, model: Any) -> float:
        found = torch.autograd.grad(model(self.U), [model.A, model.B], self.grad)
        pairs = zip(found, (self.of_A, self.of_B), strict=True)
        return max(float((x - y).abs().max() / y.abs().max()) for x, y in pairs)

    def accepts(self, model: Any, mode: str) -> bool:
        with torch.no_grad():
            model(self.U)  # what is compiled for the first call is no part of any timing
            within = self.residual_is_within(model.states(self.U))
        return within and (mode == "inference" or self.gradient_error(model) <= self.limit)


class Judge:
    """Which contenders reach the tolerance; asked once for what cases have in common."""

    def __init__(self, peers: bool) -> None:
        self.peers = peers
        self.known: dict[Any, Any] = {}

    def contenders(self, case: Case) -> dict[str, Any]:
        """Name -> model, or None of one that misses the tolerance."""
        weights = weights_of(case.n, case.p, case.weights, case.phi)
        key = (case.phi, case.n, case.p, case.weights, min(case.m, SHOWN))
        if key not in self.known:
            self.known = {k: v for k, v in self.known.items() if k[1:4] == key[1:4]}
            self.known[key] = Exact(case, weights)
        exact = self.known[key]
        made = {
            "auto": lambda: project_model(weights, case.phi, "auto"),
            "torch": lambda: project_model(weights, case.phi, "torch"),
            "plain": lambda: PlainLoop(weights, case.phi),
        }
        if self.peers:
            made["torchidl"] = lambda: torchidl_model(weights, case.phi)
            made["torchdeq"] = lambda: self._torchdeq(case, weights, exact)
        found = {}
        for name, make in made.items():
            verdict = (*key, name, case.mode)
            if verdict not in self.known:
                model = make()
                self.known[verdict] = model is not None and exact.accepts(model, case.mode)
            elif self.known[verdict]:
                model = make()
            found[name] = model if self.known[verdict] else None
        return found

    def _torchdeq(self, case: Case, weights: dict[str, Tensor], exact: Exact) -> Any:
        """The fastest of its solvers that reach the tolerances, as loose as they may be."""
        key = (case.phi, case.n, case.p, case.weights, min(case.m, SHOWN), "choice", case.mode)
        choices = [list(models) for models in torchdeq_candidates(weights, case.phi)]
        if key not in self.known:
            times = {}
            for i, models in enumerate(choices):
                for j, model in enumerate(models):
                    if exact.accepts(model, case.mode):
                        call = call_of(model, case.mode, exact.U, exact.grad)
                        times[min(clocked(call)[0] for _ in range(3))] = (i, j)
                        break
            self.known[key] = times[min(times)] if times else None
        choice = self.known[key]
        return None if choice is None else choices[choice[0]][choice[1]]


@dataclass
class Timing:
    """Seconds of one call of each contender: the median of rounds in which they take turns."""

    calls: dict[str, Callable[[], Any]]
    seconds: float
    first: dict[str, float] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)

    def run(self, models: dict[str, Any]) -> dict[str, float]:
        fastest = math.inf
        for name, call in self.calls.items():
            deadline = time.perf_counter() + max(HOPELESS * fastest, 0.05)
            if isinstance(models[name], PlainLoop):
                models[name].deadline = deadline
            try:
                self.first[name] = self._least_of_some(call)
                fastest = min(fastest, self.first[name])
            except TooSlow:
                self.first[name] = math.inf
            finally:
                if isinstance(models[name], PlainLoop):
                    models[name].deadline = None
        nearest = min(once for name, once in self.first.items() if name != "auto")
        limit = max(HOPELESS * fastest, nearest)
        kept = [name for name, once in self.first.items() if once <= limit < math.inf]
        # A call of microseconds is clocked many at a time.
        counts = {name: max(1, int(1e-3 / self.first[name])) for name in kept}
        together = sum(counts[name] * self.first[name] for name in kept)
        # Few calls that take long are told apart as well as many that do not.
        rounds = max(5 if together < 1 else 2, min(60, int(self.seconds / together)))
        self.times = {name: [] for name in kept}
        for turn in range(rounds):
            for name in kept if turn % 2 else reversed(kept):
                self.times[name].append(clocked(self.calls[name], counts[name])[0])
        return {name: statistics.median(own) for name, own in self.times.items()}

    @staticmethod
    def _least_of_some(call: Callable[[], Any]) -> float:
        """Seconds of a call, the least of some where it is short."""
        least, start = math.inf, time.perf_counter()
        for _ in range(10):
            least = min(least, clocked(call)[0])
            if time.perf_counter() - start > 0.02:
                break
        return least


def clocked(call: Callable[[], Any], count: int = 1) -> tuple[float, Any]:
    start = time.perf_counter()
    for _ in range(count):
        result = call()
    return (time.perf_counter() - start) / count, result


def row(case: Case, judge: Judge, seconds: float) -> tuple[float, str]:
    """The ratio of auto to the best of the others, and the line of the table."""
    models = judge.contenders(case)
    valid = {name: model for name, model in models.items() if model is not None}
    U, grad = batch_of(case, weights_of(case.n, case.p, case.weights, case.phi), case.m)
    calls = {name: call_of(model, case.mode, U, grad) for name, model in valid.items()}
    timing = Timing(calls, seconds)
    medians = timing.run(valid)
    others = {name: value for name, value in medians.items() if name != "auto"}
    best = min(others, key=others.__getitem__, default="none near")
    own = medians.get("auto", timing.first.get("auto", math.inf))
    ratio = own / others.get(best, HOPELESS * own)
    cells = [
        f"{medians[name] * 1e3:9.3f}" if name in medians else f"{'>' if name in valid else '-':>9}"
        for name in models
    ]
    return ratio, f"{case!s:<42} {' '.join(cells)}  {ratio:5.2f} {best}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=[], help="regular expressions of names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing for each case")
    parser.add_argument("--no-peers", action="store_true", help="torch and the plain loop alone")
    arguments = parser.parse_args()
    if not arguments.no_peers:
        require("torchidl", "torchdeq")
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", category=ImplicitFunctionWarning)
    cases = [
        case
        for case in grid()
        if not arguments.cases or any(re.search(one, str(case)) for one in arguments.cases)
    ]
    print(conditions("torchidl", "torchdeq") if not arguments.no_peers else conditions())
    judge, ratios = Judge(not arguments.no_peers), dict[Case, float]()
    names = ["auto", "torch", "plain", *([] if arguments.no_peers else ["torchidl", "torchdeq"])]
    print(f"{'ms':<42} {' '.join(f'{name:>9}' for name in names)}  ratio best of the others")
    start = time.perf_counter()
    for case in cases:
        ratios[case], line = row(case, judge, arguments.seconds)
        print(line, flush=True)
    for mode in ("inference", "training"):
        own = [ratio for case, ratio in ratios.items() if case.mode == mode]
        if own:
            print(
                f"{mode}: auto / best of the others: median {statistics.median(own):.2f}, "
                f"worst {max(own):.2f}, above 1.1 in {sum(r > 1.1 for r in own)} of {len(own)}"
            )
    for case, ratio in sorted(ratios.items(), key=lambda item: -item[1]):
        if ratio > 1.1:
            print(f"  {ratio:.2f}  {case}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
