"""The model families: one file a family, each an `nn.Module` that takes batches first.

A new model is a file here. For `idl train model=<name>` it also needs options in
`idl_cli/config/model_options.py`, a line in `idl_cli/config/build_model.py`, and `conf/model/`.
"""

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
