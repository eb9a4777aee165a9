"""The model families."""

from idl_core.models.implicit import ImplicitModel
from idl_core.models.mlp import MLP

__all__ = ["MLP", "ImplicitModel"]
