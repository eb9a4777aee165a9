"""Each program's iterates, one by one, are those of the algorithm that it says it runs.

An equilibrium that is found says little of how: with a wrong history a bounded activation's still
is, later, or not at all where a linear one's runs away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from equilibria import accelerated, contraction
from test_low_rank import factors
from torch import Tensor

from idl_core.activations import ACTIVATIONS
from idl_core.kernels.triton.support import KNOWN

SAMPLES = 3
# The history of window 2 is first used in the third iteration, and seen in the fourth image.
COUNTS = (1, 2, 3, 4, 6)


def like(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def phi_of(activation: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pre: ACTIVATIONS[activation].phi(torch.from_numpy(pre)).numpy()


def compare(found: Tensor, expected: np.ndarray) -> None:
    error = float(np.abs(found.cpu().numpy() - expected).max())
    assert error <= 1e-4 * max(1.0, float(np.abs(expected).max())), error


@pytest.mark.parametrize(
    ("n", "activation"), [*((12, name) for name in KNOWN), (130, "identity"), (130, "silu")]
)
def test_dense(n: int, activation: str, device: str) -> None:
    """On chip and, of 130, streamed."""
    A, Z = contraction(n, 0.9, "trained"), 2 * like(SAMPLES, n, seed=1)
    matrix, drive = exact(A, Z)
    phi = phi_of(activation)
    for count in COUNTS:
        found, figures = torch.ops.idl.solve_chain(
            A.to(device), Z[None].to(device), None, None, None,
            SAMPLES, 1, 0, activation, False, 0.0, count,
        )  # fmt: skip
        expected = [accelerated(lambda x, d=d: phi(matrix @ x + d), phi(d), count) for d in drive]
        compare(found[0], np.stack(expected))
        residual, bound, maps = figures.cpu()
        assert bool((maps == count)[residual > bound].all())
        assert int(maps.max()) <= count


@pytest.mark.parametrize(("n", "activation"), [(12, "relu"), (12, "silu"), (130, "tanh")])
def test_adjoint_of_a_dense_one(n: int, activation: str, device: str) -> None:
    A, G = contraction(n, 0.9, "trained"), like(SAMPLES, n, seed=2)
    point = like(SAMPLES, n, seed=3).tanh()
    pre = point.double() if activation == "silu" else inverse_of(point.double(), activation)
    slopes = ACTIVATIONS[activation].dphi(pre).numpy()
    matrix, grads = exact(A, G)
    for count in COUNTS:
        found, _ = torch.ops.idl.solve_chain(
            A.to(device), G[None].to(device), None, None, point[None].to(device),
            SAMPLES, 1, 0, activation, True, 0.0, count,
        )  # fmt: skip
        expected = [
            accelerated(lambda v, s=s, g=g: s * (matrix.T @ v + g), s * g, count)
            for s, g in zip(slopes, grads, strict=True)
        ]
        compare(found[0], np.stack(expected))


def inverse_of(value: Tensor, activation: str) -> Tensor:
    """The pre-activation of a value of φ."""
    return value.atanh() if activation == "tanh" else value


@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_sequence(activation: str, device: str) -> None:
    """Each step starts from the state before."""
    n, k, steps = 10, 5, 3
    W, drive = contraction(n + k, 0.9, "trained"), 2 * like(steps, SAMPLES, n + k, seed=4)
    c0 = like(SAMPLES, k, seed=5)
    matrix, drives, carries = exact(W, drive, c0)
    phi = phi_of(activation)
    on_device = drive.to(device)
    for count in COUNTS:
        found, _ = torch.ops.idl.solve_chain(
            W.to(device), on_device[..., :n], on_device[..., n:], c0.to(device), None,
            SAMPLES, steps, k, activation, False, 0.0, count,
        )  # fmt: skip
        for sample in range(SAMPLES):
            s, c = np.zeros(n), carries[sample]
            for j in range(steps):
                d = matrix[:n, n:] @ c + drives[j, sample, :n]
                s = accelerated(lambda x, d=d: phi(matrix[:n, :n] @ x + d), s, count)
                compare(found[j, sample], np.concatenate((s, c)))
                c = matrix[n:] @ np.concatenate((s, c)) + drives[j, sample, n:]
            compare(found[steps, sample, n:], c)


@pytest.mark.parametrize("activation", ["identity", "silu"])
def test_low_rank(activation: str, device: str) -> None:
    n, r = 70, 5
    (L, R), Z = factors(n, r, 0.9), 2 * like(SAMPLES, n, seed=6)
    left, right, drive = exact(L, R, Z)
    phi = phi_of(activation)
    for count in COUNTS:
        X, y, _ = torch.ops.idl.solve_low_rank(
            *(t.to(device) for t in (L, R, Z)), None, None, activation, False, 0.0, count
        )
        for sample, d in enumerate(drive):
            expected = accelerated(lambda y, d=d: phi(left @ y + d) @ right, np.zeros(r), count)
            compare(y[sample], expected)
            compare(X[sample], phi(left @ expected + d))
