"""The GPT with equilibrium heads: its speed, and what it learns.

    python benchmarks/gpt.py speed
    python benchmarks/gpt.py train path/to/tinyshakespeare.txt [--steps 2000]

`speed` times forward + backward, beside a loop over heads that follows the equations literally
(state, A scaled by its norm, masked weights written out, the states compared to stop early) and
beside the explicit baseline, which differs in the attention alone. `train` follows the recipe of
nanoGPT for this size on a CPU: AdamW, 1e-3 down to 1e-4 by a cosine after 100 steps of warm-up,
clipping at 1.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.models.gpt import GPT, ImplicitGPT
from idl_core.models.implicit_attention import ImplicitAttention

SIZES = {"vocab_size": 65, "n_embd": 128, "block_size": 64, "n_layer": 4, "n_head": 4}
BATCH = 12


class LoopAttention(nn.Module):
    """The heads of an `ImplicitAttention`, one after the other, every array written out."""

    def __init__(self, fused: ImplicitAttention) -> None:
        super().__init__()
        own = fused.equilibrium
        self.h, self.iterations = own.head_size, own.settings.fixed_point_iter
        # B with a fourth part, for the state's `out`, that attention does not read.
        self.A = nn.ParameterList(F.pad(A, (0, self.h)) for A in own.effective_A().detach())
        self.B = nn.ParameterList(F.pad(B, (0, self.h)) for B in own.B.detach())
        self.proj = fused.proj
        self.register_buffer("mask", torch.tril(torch.ones(fused.block_size, fused.block_size)))

    def forward(self, u: Tensor) -> Tensor:
        b, T, _ = u.shape
        h, outs = self.h, []
        for A, B in zip(self.A, self.B, strict=True):
            norm = torch.linalg.matrix_norm(A, ord=math.inf)
            A = A * (0.95 / norm).clamp(max=1.0)
            driven = torch.einsum("bte,ek->btk", u, B)
            X = torch.zeros(b, T, 4 * h)
            for _ in range(self.iterations):
                k, q, v, _out = (torch.einsum("btj,jk->btk", X, A) + driven).split(h, -1)
                weight = (q @ k.transpose(-2, -1)) * h**-0.5
                weight = F.softmax(weight.masked_fill(self.mask[:T, :T] == 0, -math.inf), dim=-1)
                following = torch.cat((k, q, v, weight @ v), -1)
                if torch.allclose(following, X, atol=1e-6):
                    break
                X = following
            outs.append(X[..., 3 * h :])
        return self.proj(torch.cat(outs, -1))


def median_ms(models: dict[str, nn.Module], rounds: int) -> dict[str, float]:
    """Median time of forward + backward of each, taken in turn."""
    idx = torch.randint(SIZES["vocab_size"], (BATCH, SIZES["block_size"]))
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 3):
        for name, model in models.items():
            model.zero_grad()
            start = time.perf_counter()
            loss = F.cross_entropy(model(idx).flatten(0, 1), idx.flatten())
            loss.backward()
            if number >= 3:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(all_) for name, all_ in times.items()}


def speed(rounds: int) -> None:
    torch.manual_seed(0)
    fused = ImplicitGPT(**SIZES)
    looped = ImplicitGPT(**SIZES)
    looped.load_state_dict(fused.state_dict())
    for block in looped.blocks:
        block.sa = LoopAttention(block.sa)
    idx = torch.randint(SIZES["vocab_size"], (BATCH, SIZES["block_size"]))
    with torch.no_grad():
        torch.testing.assert_close(looped(idx), fused(idx), atol=1e-5, rtol=0)
    models = {"implicit": fused, "per-head loop": looped, "explicit": GPT(**SIZES)}
    times = median_ms(models, rounds)
    print(f"forward + backward, {SIZES}, batch {BATCH}, 2 iterations, {torch.get_num_threads()}t")
    for name, ms in times.items():
        print(f"  {name:14} {ms:8.1f} ms")
    print(f"  per-head loop / implicit  {times['per-head loop'] / times['implicit']:.2f} x")
    print(f"  implicit / explicit       {times['implicit'] / times['explicit']:.2f} x")


def batch_of(tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    T = SIZES["block_size"]
    starts = torch.randint(len(tokens) - T, (BATCH, 1), generator=generator)
    windows = tokens[starts + torch.arange(T + 1)]
    return windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def loss_on(model: nn.Module, tokens: Tensor) -> float:
    """Mean loss over all of the tokens, cut into whole contexts."""
    T = SIZES["block_size"]
    whole = (len(tokens) - 1) // T
    inputs, targets = tokens[: whole * T].view(-1, T), tokens[1 : whole * T + 1].view(-1, T)
    total = 0.0
    for part in range(0, whole, 256):
        scores = model(inputs[part : part + 256])
        targets_part = targets[part : part + 256].flatten()
        total += float(F.cross_entropy(scores.flatten(0, 1), targets_part, reduction="sum"))
    return total / (whole * T)


def rate(step: int, steps: int) -> float:
    if step < 100:
        return 1e-3 * (step + 1) / 101
    progress = (step - 100) / max(1, steps - 100)
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * progress)) * (1e-3 - 1e-4)


def fit(model: nn.Module, train: Tensor, steps: int) -> None:
    generator = torch.Generator().manual_seed(1337)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
    for step in range(steps):
        inputs, targets = batch_of(train, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 250 == 249:
            print(f"    step {step + 1}: train loss {loss.item():.4f}", flush=True)


def train(path: Path, steps: int, only: str | None) -> None:
    text = path.read_text(encoding="utf-8")
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    tokens = torch.tensor([number[character] for character in text])
    cut = int(0.9 * len(tokens))
    for name, kind in (("implicit", ImplicitGPT), ("explicit", GPT)):
        if only not in (None, name):
            continue
        torch.manual_seed(1337)
        model = kind(**{**SIZES, "vocab_size": len(alphabet)})
        size = sum(p.numel() for p in model.parameters())
        print(f"{name}: {size:,} parameters", flush=True)
        start = time.perf_counter()
        fit(model, tokens[:cut], steps)
        seconds = time.perf_counter() - start
        loss = loss_on(model, tokens[cut:])
        print(f"  {steps} steps in {seconds:.0f} s: loss on the last tenth {loss:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_speed = commands.add_parser("speed")
    of_speed.add_argument("--rounds", type=int, default=30)
    of_train = commands.add_parser("train")
    of_train.add_argument("path", type=Path)
    of_train.add_argument("--steps", type=int, default=2000)
    of_train.add_argument("--only", choices=["implicit", "explicit"])
    arguments = parser.parse_args()
    if arguments.command == "speed":
        speed(arguments.rounds)
    else:
        train(arguments.path, arguments.steps, arguments.only)


if __name__ == "__main__":
    main()
