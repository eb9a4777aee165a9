"""A whole implicit model Ŷ = X Cᵀ + U Dᵀ at X = φ(X Aᵀ + U Bᵀ) in torch: the products around it."""

from __future__ import annotations

import torch
from torch import Tensor

from idl_core.kernels.problem import Model


def drive(model: Model, U: Tensor) -> Tensor:
    """Z = U Bᵀ (m, n). Columns are samples in memory: so these products are the fastest."""
    return (model.B @ U.T).T


def outputs(model: Model, U: Tensor, X: Tensor) -> Tensor:
    """Ŷ (m, q) from the states X (m, n)."""
    if model.D is None:
        return X @ model.C.T
    return torch.addmm((model.D @ U.T).T, X, model.C.T)


def pull(model: Model, grad: Tensor) -> Tensor:
    """The gradient of the states (m, n) from that of Ŷ (m, q)."""
    return (model.C.T @ grad.T).T


def gradients(model: Model, U: Tensor, X: Tensor, V: Tensor, grad: Tensor) -> Model:
    """Those of the matrices, from the adjoint solution V (m, n) and the gradient of Ŷ."""
    of_D = None if model.D is None else grad.T @ U
    return Model(V.T @ X, None, V.T @ U, grad.T @ X, of_D)
