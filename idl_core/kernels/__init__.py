"""The affine equilibrium X = φ(X Aᵀ + Z) and its adjoint: dense, low rank, triangular."""

from idl_core.kernels.choice import KERNELS, available, paths
from idl_core.kernels.dispatch import (
    dense_equilibrium,
    low_rank_equilibrium,
    prediction,
    recurrent_equilibrium,
    rows_within,
    triangular_equilibrium,
    whole_model,
)
from idl_core.kernels.recurrent import Recurrence

__all__ = [
    "KERNELS",
    "Recurrence",
    "available",
    "dense_equilibrium",
    "low_rank_equilibrium",
    "paths",
    "prediction",
    "recurrent_equilibrium",
    "rows_within",
    "triangular_equilibrium",
    "whole_model",
]
