"""The implicit RNN beside torchidl's: its speed, its memory, and what it learns.

    python benchmarks/rnn.py speed
    python benchmarks/rnn.py memory
    python benchmarks/rnn.py spiky [--batch-size 256 --rate 1e-3]

`spiky` trains both from the same weights as the peer's example script does: all windows in one
batch, 100 epochs of Adam at 5e-4, A of rank 2. The peer is torchidl 0.0.4 (pip install --no-deps
torchidl==0.0.4 tqdm).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core import ImplicitRNN
from idl_datasets import SeriesDataset, Split, load

HIDDEN, STATES = 22, 20


def peer_model(rank: int | None = None) -> nn.Module:
    from torchidl.implicit_rnn_model import ImplicitRNN as PeerRNN

    return PeerRNN(1, 1, STATES, HIDDEN, is_low_rank=rank is not None, rank=rank)


def median_ms(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(all_) for name, all_ in times.items()}


def speed(rounds: int) -> None:
    """Forward + backward at initial weights, and after some training on a smooth series."""
    torch.manual_seed(0)
    peer, own = peer_model(), ImplicitRNN(1, 1, STATES, HIDDEN, projection="global")
    own.load_state_dict(peer.state_dict())
    x, y = torch.randn(256, 59, 1), torch.randn(256, 1)
    print(f"batch 256, T 59, torchidl {version('torchidl')}, {torch.get_num_threads()} threads")
    for what in ("initial weights", "trained weights"):
        if what == "trained weights":
            data = load("spiky")
            fit(own, data.train, epochs=5, rate=5e-3, batch_size=256)
            peer.load_state_dict(own.state_dict())
            with torch.no_grad():  # the peer scales A itself, but its gradient ignores that
                x, y = data.train.batch(torch.arange(0, 256 * 20, 20))
                x = x[:, 1:]
                torch.testing.assert_close(own(x), peer(x), atol=1e-4, rtol=1e-4)

        def step(model: nn.Module, x: Tensor = x, y: Tensor = y) -> None:
            model.zero_grad()
            F.mse_loss(model(x), y).backward()

        times = median_ms({"torchidl": lambda: step(peer), "idl": lambda: step(own)}, rounds)
        ratio = times["torchidl"] / times["idl"]
        both = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
        print(f"  {what}: {both}: {ratio:.2f} x")


def memory() -> None:
    """Numbers kept for backward, and time, at lengths up to 1,000 and two bounds on iterations."""
    for T in (250, 500, 1000):
        for mitr in (30, 300):
            torch.manual_seed(0)
            model = ImplicitRNN(1, 1, STATES, HIDDEN, mitr=mitr, grad_mitr=mitr)
            x = torch.randn(64, T, 1)
            kept = 0

            def pack(tensor: Tensor) -> Tensor:
                nonlocal kept
                kept += tensor.numel()
                return tensor

            start = time.perf_counter()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = model(x).square().mean()
            loss.backward()
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"  T {T:5} mitr {mitr:4}: keeps {kept:,} numbers, {seconds:.2f} s, {peak:.0f} MB"
            )


def fit(model: nn.Module, train: Split, epochs: int, rate: float, batch_size: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for index in torch.randperm(len(train), generator=generator).split(batch_size):
            inputs, targets = train.batch(index)
            loss = F.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def figures(data: SeriesDataset, split: Split, predicted: Tensor) -> str:
    """mse and r2 in the series' own units."""
    truth, guess = split.y, data.denormalise(predicted)
    mse = (truth - guess).square().mean()
    r2 = 1 - mse / truth.var(correction=0)
    return f"mse {float(mse):.4f}, R2 {float(r2):.4f}"


def compare(
    data: SeriesDataset,
    models: dict[str, nn.Module],
    epochs: int,
    rate: float,
    batch_size: int,
) -> None:
    print(f"  {'persistence':12} test {figures(data, data.test, data.persistence(data.test))}")
    for name, model in models.items():
        start = time.perf_counter()
        fit(model, data.train, epochs, rate, batch_size)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            inputs, _ = data.test.batch(torch.arange(len(data.test)))
            predicted = model(inputs)
        size = sum(p.numel() for p in model.parameters())
        said = figures(data, data.test, predicted)
        print(f"  {name:12} test {said}, {size:,} parameters, {seconds:.0f} s", flush=True)


def spiky(epochs: int, seed: int, rate: float, batch_size: int | None, rank: int) -> None:
    data = load("spiky", val_fraction=0, seed=seed)
    assert isinstance(data, SeriesDataset)
    torch.manual_seed(seed)
    low_rank = rank or None
    peer = peer_model(low_rank)
    own = ImplicitRNN(
        1, 1, STATES, HIDDEN, is_low_rank=rank > 0, rank=low_rank, projection="global"
    )
    own.load_state_dict(peer.state_dict())
    print(f"spiky, {epochs} epochs, rate {rate}, seed {seed}, torchidl {version('torchidl')}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchidl")  # one a solve that does not converge
        models = {"idl": own, "torchidl": peer}
        compare(data, models, epochs, rate, batch_size or len(data.train))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_speed = commands.add_parser("speed")
    of_speed.add_argument("--rounds", type=int, default=20)
    commands.add_parser("memory")
    of_spiky = commands.add_parser("spiky")
    of_spiky.add_argument("--epochs", type=int, default=100)
    of_spiky.add_argument("--seed", type=int, default=0)
    of_spiky.add_argument("--rate", type=float, default=5e-4)
    of_spiky.add_argument("--batch-size", type=int, help="all windows unless given")
    of_spiky.add_argument("--rank", type=int, default=2, help="of A; 0: not of low rank")
    arguments = vars(parser.parse_args())
    commands_by_name = {"speed": speed, "memory": memory, "spiky": spiky}
    commands_by_name[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
