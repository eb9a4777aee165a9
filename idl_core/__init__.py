"""The torch library of idl: equilibria, their exact gradients, and models made of them."""

from idl_core.equilibrium import (
    Anderson,
    Broyden,
    Implicit,
    ImplicitFunctionWarning,
    Phantom,
    Picard,
    Solution,
    Unrolled,
    fixed_point,
)
from idl_core.functions import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionTriu
from idl_core.models import MLP, ImplicitModel

__all__ = [
    "MLP",
    "Anderson",
    "Broyden",
    "Implicit",
    "ImplicitFunction",
    "ImplicitFunctionInf",
    "ImplicitFunctionTriu",
    "ImplicitFunctionWarning",
    "ImplicitModel",
    "Phantom",
    "Picard",
    "Solution",
    "Unrolled",
    "fixed_point",
]
