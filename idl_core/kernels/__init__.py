"""The affine equilibrium X = φ(X Aᵀ + Z) and its adjoint: dense, of low rank, triangular, or one
after another in a sequence; in torch, numba or triton."""

from idl_core.kernels.backend import KERNELS, available, paths, rows_within
from idl_core.kernels.problem import Affine, Method, Model
from idl_core.kernels.solve import (
    equilibrium,
    model_output,
    prediction,
    recurrent_output,
    triangular_equilibrium,
)

__all__ = [
    "KERNELS",
    "Affine",
    "Method",
    "Model",
    "available",
    "equilibrium",
    "model_output",
    "paths",
    "prediction",
    "recurrent_output",
    "rows_within",
    "triangular_equilibrium",
]
