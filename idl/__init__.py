"""The import name of idl: everything a user of the library needs. Re-exports only."""

from idl_core import (
    MLP,
    Anderson,
    Broyden,
    Implicit,
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionTriu,
    ImplicitFunctionWarning,
    ImplicitModel,
    Phantom,
    Picard,
    Solution,
    Unrolled,
    fixed_point,
)

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
