"""Equilibria in float64 by plain iteration and dense linear algebra: what programs are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idl_core.activations import ACTIVATIONS


def contraction(n: int, kappa: float, kind: str, seed: int = 0) -> Tensor:
    """A (n, n) with ‖A‖∞ = kappa, float32."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "random":
        A = torch.randn(n, n, generator=generator)
    elif kind == "trained":  # a few strong entries a row, the row sums at the bound
        A = torch.randn(n, n, generator=generator) * (torch.rand(n, n, generator=generator) < 0.15)
        A += 0.5 * torch.eye(n)
        A /= A.abs().sum(1, keepdim=True)
    elif kind == "slow":  # positive, every row sum at the bound: nothing contracts faster
        A = torch.rand(n, n, generator=generator) + 0.05
        A /= A.sum(1, keepdim=True)
    else:
        raise ValueError(kind)
    return A * (kappa / A.abs().sum(1).max())


def solution(A: Tensor, Z: Tensor, activation: str) -> Tensor:
    """X = φ(X Aᵀ + Z) (m, n) in float64, to 1e-13."""
    phi = ACTIVATIONS[activation].phi
    A, Z = A.detach().cpu().double(), Z.detach().cpu().double()
    X = phi(Z)
    for _ in range(100_000):
        image = phi(X @ A.T + Z)
        if float((image - X).abs().max()) <= 1e-13:
            return image
        X = image
    raise AssertionError("no equilibrium")


def gradients(A: Tensor, Z: Tensor, G: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Of the sum of G ∘ X with respect to A and Z, in float64, by a linear solve a sample."""
    X = solution(A, Z, activation)
    A, Z, G = (t.detach().cpu().double() for t in (A, Z, G))
    slopes = ACTIVATIONS[activation].dphi(X @ A.T + Z)
    V = np.stack(
        [
            np.linalg.solve(np.eye(len(A)) - s[:, None] * A.numpy().T, s * g)
            for s, g in zip(slopes.numpy(), G.numpy(), strict=True)
        ]
    )
    V = torch.from_numpy(V)
    return V.T @ X, V


def residual(X: Tensor, A: Tensor, Z: Tensor, activation: str) -> Tensor:
    """max|φ(X Aᵀ + Z) - X| of each sample, in float64."""
    X, A, Z = (t.detach().cpu().double() for t in (X, A, Z))
    return (ACTIVATIONS[activation].phi(X @ A.T + Z) - X).abs().amax(1)


Vector = np.ndarray[Any, np.dtype[np.float64]]


def accelerated(image: Callable[[Vector], Vector], x: Vector, count: int) -> Vector:
    """The image of the last of `count` iterates, by Anderson's acceleration of window 2.

    The next iterate is g_k - sum_j w_j (g_{k-j} - g_{k-j-1}), j = 0, 1, with the w that make
    |r_k - sum_j w_j (r_{k-j} - r_{k-j-1})| the least; it is g_k where the residual r_k is more than
    twice the smallest so far. Walker and Ni, SINUM 49 (2011).
    """
    images: list[Vector] = []
    residuals: list[Vector] = []
    for k in range(count):
        images.append(image(x))
        residuals.append(images[k] - x)
        x = images[k]
        sizes = [float(np.abs(r).max()) for r in residuals]
        if k and sizes[k] <= 2 * min(sizes[:k]):
            recent = slice(max(0, k - 2), None)
            of_residuals, of_images = (np.diff(h[recent], axis=0) for h in (residuals, images))
            weights = np.linalg.lstsq(of_residuals.T, residuals[k], rcond=None)[0]
            x = x - weights @ of_images
    return images[-1]
