"""The Triton kernels on a GPU against torchidl and torchdeq: forward + backward, CUDA events.

    python benchmarks/gpu.py [--rounds N] [--ceilings]

What the card does at most, matrix products and copies, and one row a case: median milliseconds of
ours with kernel=triton, with kernel=torch and with auto's choice, and of each peer, all taken in
turns on the same card and the same weights; the ratio of the faster peer to auto; auto's residual,
so that nothing is faster for having stopped early; and its share of the ceiling: the flops of its
applications of A, forward and adjoint, in the time of the whole step, to those of cuBLAS in the
same precision. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
import torch.nn.functional as F
from peers import require
from torch import Tensor, nn

from idl_core import ImplicitFunctionWarning, ImplicitModel, ImplicitRNN
from idl_core.equilibrium.solution import LastSolution

# (p, n, q, m); how many times as fast as the faster peer it is to be, what share of the ceiling.
CASES: dict[tuple[int, int, int, int], tuple[float, float | None]] = {
    (784, 100, 10, 64): (10.0, None),
    (3072, 300, 10, 512): (8.0, None),
    (3072, 1024, 10, 4096): (2.0, 0.5),
}
SEQUENCE = {"m": 256, "T": 59, "hidden": 22, "states": 20}
SEQUENCE_TARGET = 30.0
TOL = 3e-6

Step = Callable[[], object]


def medians(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Median milliseconds of each by CUDA events, taken in turns after two rounds unmeasured."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            if number >= 2:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(own) for name, own in times.items()}


def training_step(model: nn.Module, inputs: Tensor, targets: Tensor) -> Step:
    """Forward and backward of one batch, from no gradients."""
    loss = F.cross_entropy if targets.dtype == torch.int64 else F.mse_loss

    def step() -> None:
        model.zero_grad()
        loss(model(inputs), targets).backward()

    return step


class DEQ(nn.Module):
    """The same equilibrium written for torchdeq, with its plain iteration to our tolerance."""

    def __init__(self, weights: dict[str, Tensor], n: int) -> None:
        super().__init__()
        import torchdeq

        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        # Its tolerance is of a 2-norm: √n as large where all entries are alike, as they may be.
        tol = TOL * n**0.5
        self.deq = torchdeq.get_deq(
            ift=True, f_solver="fixed_point_iter", f_max_iter=300, f_tol=tol,
            b_solver="fixed_point_iter", b_max_iter=300, b_tol=TOL,
        )  # fmt: skip

    def forward(self, U: Tensor) -> Tensor:
        Z = F.linear(U, self.B)
        out, _ = self.deq(lambda X: F.relu(torch.addmm(Z, X, self.A.T)), torch.zeros_like(Z))
        return F.linear(out[-1], self.C) + F.linear(U, self.D)


def dense(sizes: tuple[int, int, int, int], rounds: int, ceiling: float) -> dict[str, float]:
    import torchidl

    p, n, q, m = sizes
    torch.manual_seed(0)
    own = {k: ImplicitModel(p, q, n, kernel=k).cuda() for k in ("triton", "torch", "auto")}
    weights = {k: v.clone() for k, v in own["auto"].state_dict().items()}
    weights["A"] = own["auto"].effective_A().detach() * (1 - 1e-6)
    for model in own.values():
        model.load_state_dict(weights)
    peer = torchidl.ImplicitModel(p, q, n).cuda()
    peer.load_state_dict(weights)
    models = {**own, "torchidl": peer, "torchdeq": DEQ(weights, n).cuda()}
    inputs = torch.randn(m, p, device="cuda")
    targets = torch.randint(q, (m,), device="cuda")
    steps = {name: training_step(model, inputs, targets) for name, model in models.items()}
    row = medians(steps, rounds)
    solved = own["auto"].last_solution  # of the last round
    of_ceiling = share(flops(solved, n), row["auto"], ceiling)
    return row | {"residual": _residual(solved), "share": of_ceiling}


def sequence(rounds: int) -> dict[str, float]:
    from torchidl.implicit_rnn_model import ImplicitRNN as PeerRNN

    torch.manual_seed(0)
    states, hidden = SEQUENCE["states"], SEQUENCE["hidden"]
    own = {
        k: ImplicitRNN(1, 1, states, hidden, kernel=k).cuda() for k in ("triton", "torch", "auto")
    }
    peer = PeerRNN(1, 1, states, hidden).cuda()
    for model in own.values():
        model.load_state_dict(peer.state_dict())
    inputs = torch.randn(SEQUENCE["m"], SEQUENCE["T"], 1, device="cuda")
    targets = torch.randn(SEQUENCE["m"], 1, device="cuda")
    models = {**own, "torchidl": peer}
    steps = {name: training_step(model, inputs, targets) for name, model in models.items()}
    return medians(steps, rounds) | {"residual": _residual(own["auto"].last_solution)}


def _residual(solved: LastSolution) -> float:
    assert solved.forward is not None
    return float(solved.forward.residual.max())


def flops(solved: LastSolution, n: int) -> float:
    """Of the applications of A (n, n) to each sample, 2 n² each, in the forward solve and the
    adjoint's; what a tile does for samples that are done is not counted."""
    total = 0.0
    for one in (solved.forward, solved.adjoint):
        assert one is not None
        total += 2.0 * n**2 * float(one.iterations.sum())
    return total


def share(of_flops: float, ms: float, ceiling: float) -> float:
    """What part of `ceiling` TFLOP/s so many flops in `ms` milliseconds are."""
    return of_flops / (ms * 1e9) / ceiling


def ceilings(rounds: int) -> float:
    """What the card does at most: products of 8192 x 8192 matrices, and copies of 1 GiB.

    Returns:
        TFLOP/s of the products in the precision that torch is set to.
    """
    usual, rates = torch.get_float32_matmul_precision(), {}
    a, b = torch.randn(2, 8192, 8192, device="cuda").unbind(0)
    from_, to = torch.empty(2, 2**28, device="cuda").unbind(0)
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        ms = medians({"": lambda: a @ b}, rounds)[""]
        rates[precision] = 2 * 8192**3 / ms / 1e9
        print(f"float32 products, {precision}: {rates[precision]:.1f} TFLOP/s")
    torch.set_float32_matmul_precision(usual)
    ms = medians({"": lambda: to.copy_(from_)}, rounds)[""]
    print(f"copies, read and written: {2 * 2**30 / ms / 1e9:.2f} TB/s")
    return rates["highest" if usual == "highest" else "high"]


def show(
    label: str, row: dict[str, float], target: float, share_target: float | None = None
) -> None:
    ours = row["auto"]
    peer = min(row[name] for name in ("torchidl", "torchdeq") if name in row)
    peers = " ".join(
        f"{row[name]:9.3f}" if name in row else f"{'-':>9}" for name in ("torchidl", "torchdeq")
    )
    of_ceiling = f"{row['share']:8.1%}" if "share" in row else f"{'-':>8}"
    to_reach = f"{'-':>8}" if share_target is None else f"{share_target:8.0%}"
    print(
        f"{label:28} {row['triton']:8.3f} {row['torch']:8.3f} {ours:8.3f} {peers} "
        f"{peer / ours:7.1f}x {target:7.0f}x {of_ceiling} {to_reach}  {row['residual']:.1e}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--ceilings", action="store_true", help="only what the card does at most")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU that torch can use: there is nothing to time here.")
        return 0
    if arguments.ceilings:
        ceilings(min(arguments.rounds, 20))
        return 0
    require("torchidl", "torchdeq", "triton")
    # The table shows residuals; the peers warn at every step that stops short.
    warnings.filterwarnings("ignore", category=ImplicitFunctionWarning)
    for peer in ("torchidl", "torchdeq"):
        warnings.filterwarnings("ignore", module=peer)
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "triton", "torchidl", "torchdeq")
    )
    print(f"{torch.cuda.get_device_name()}, {versions}, {torch.get_float32_matmul_precision()}")
    ceiling = ceilings(arguments.rounds)
    print(
        f"{'ms, forward + backward':28} {'triton':>8} {'torch':>8} {'auto':>8} {'torchidl':>9} "
        f"{'torchdeq':>9} {'ratio':>8} {'to reach':>8} {'ceiling':>8} {'to reach':>8}  residual"
    )
    for sizes, targets in CASES.items():
        show(", ".join(map(str, sizes)), dense(sizes, arguments.rounds, ceiling), *targets)
    label = f"RNN {SEQUENCE['m']} x {SEQUENCE['T']}, {SEQUENCE['hidden']}/{SEQUENCE['states']}"
    show(label, sequence(arguments.rounds), SEQUENCE_TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
