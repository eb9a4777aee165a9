"""The model families."""

from idl_core.models.cnn import CNN
from idl_core.models.gpt import GPT, GPTLanguageModel, GPTSettings, ImplicitGPT
from idl_core.models.implicit import ImplicitModel
from idl_core.models.implicit_attention import AttentionSettings, IDLHead, ImplicitAttention
from idl_core.models.mlp import MLP
from idl_core.models.recurrent_baselines import GRU, LSTM
from idl_core.models.rnn import ImplicitRNN, ImplicitRNNCell

__all__ = [
    "CNN",
    "GPT",
    "GRU",
    "LSTM",
    "MLP",
    "AttentionSettings",
    "GPTLanguageModel",
    "GPTSettings",
    "IDLHead",
    "ImplicitAttention",
    "ImplicitGPT",
    "ImplicitModel",
    "ImplicitRNN",
    "ImplicitRNNCell",
]
