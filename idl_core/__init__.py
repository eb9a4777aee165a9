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
from idl_core.models import (
    GPT,
    GRU,
    LSTM,
    MLP,
    GPTLanguageModel,
    IDLHead,
    ImplicitAttention,
    ImplicitGPT,
    ImplicitModel,
    ImplicitRNN,
    ImplicitRNNCell,
)

__all__ = [
    "GPT",
    "GRU",
    "LSTM",
    "MLP",
    "Anderson",
    "Broyden",
    "GPTLanguageModel",
    "IDLHead",
    "Implicit",
    "ImplicitAttention",
    "ImplicitFunction",
    "ImplicitFunctionInf",
    "ImplicitFunctionTriu",
    "ImplicitFunctionWarning",
    "ImplicitGPT",
    "ImplicitModel",
    "ImplicitRNN",
    "ImplicitRNNCell",
    "Phantom",
    "Picard",
    "Solution",
    "Unrolled",
    "fixed_point",
]
