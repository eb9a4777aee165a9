"""The affine equilibrium X = φ(X Aᵀ + Z) and its adjoint: dense, low rank, triangular."""

from idl_core.kernels.dispatch import (
    available,
    dense_equilibrium,
    low_rank_equilibrium,
    triangular_equilibrium,
)

__all__ = ["available", "dense_equilibrium", "low_rank_equilibrium", "triangular_equilibrium"]
