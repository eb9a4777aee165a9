"""From the options of the group model to the model: the registry of models.

Every model has a class of options in model_options.py and, here, the function that builds it. A
configuration from elsewhere can therefore build nothing but these.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from idl_cli.config.model_options import (
    AttentionConfig,
    CNNConfig,
    GPTConfig,
    GRUConfig,
    ImplicitConfig,
    ImplicitOptions,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    RNNConfig,
)
from idl_cli.errors import InputError
from idl_core import AttentionSettings, ImplicitSettings, functions
from idl_core.models import CNN, GPT, GRU, LSTM, MLP, ImplicitGPT, ImplicitModel, ImplicitRNN
from idl_core.sim.memory import available_bytes
from idl_datasets import Dataset

T = TypeVar("T")

_WELLPOSED = {
    "inf": functions.ImplicitFunctionInf,
    "triu": functions.ImplicitFunctionTriu,
    "none": functions.ImplicitFunction,
}


def _settings(kind: type[T], config: object) -> T:
    """The settings object of a model family from the options that have the names of its fields."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(config, name) for name in names})


def _equilibrium(config: ImplicitOptions) -> dict[str, Any]:
    """The arguments of an equilibrium layer, whichever model it is part of."""
    return {
        "f": _WELLPOSED[config.wellposed],
        "no_D": config.no_D,
        "bias": config.bias,
        "is_low_rank": config.is_low_rank,
        "rank": config.rank,
        "settings": _settings(ImplicitSettings, config),
    }


def _implicit(config: ImplicitConfig, dataset: Dataset) -> nn.Module:
    return ImplicitModel(
        math.prod(dataset.input_shape),
        dataset.output_dim,
        config.hidden_dim,
        **_equilibrium(config),
    )


def _mlp(config: MLPConfig, dataset: Dataset) -> nn.Module:
    return MLP(
        math.prod(dataset.input_shape),
        dataset.output_dim,
        config.hidden_dims,
        config.activation,
        bias=config.bias,
    )


def _cnn(config: CNNConfig, dataset: Dataset) -> nn.Module:
    return CNN(
        dataset.input_shape,
        dataset.output_dim,
        config.channels,
        config.kernel_size,
        config.activation,
        bias=config.bias,
    )


def _rnn(config: RNNConfig, dataset: Dataset) -> nn.Module:
    return ImplicitRNN(
        _features(dataset),
        dataset.output_dim,
        config.implicit_hidden_dim,
        config.hidden_dim,
        differences=config.differences,
        **_equilibrium(config),
    )


def _recurrent_baseline(config: GRUConfig | LSTMConfig, dataset: Dataset) -> nn.Module:
    kind = GRU if config.name == "gru" else LSTM
    return kind(
        _features(dataset),
        dataset.output_dim,
        config.hidden_dim,
        config.num_layers,
        differences=config.differences,
    )


def _attention(config: AttentionConfig, dataset: Dataset) -> nn.Module:
    return ImplicitGPT(
        dataset.output_dim,
        config.n_embd,
        dataset.input_shape[0],
        config.n_layer,
        config.n_head,
        config.dropout,
        _settings(AttentionSettings, config),
    )


def _gpt(config: GPTConfig, dataset: Dataset) -> nn.Module:
    return GPT(
        dataset.output_dim,
        config.n_embd,
        dataset.input_shape[0],
        config.n_layer,
        config.n_head,
        config.dropout,
    )


MODELS: dict[type, Callable[[Any, Dataset], nn.Module]] = {
    ImplicitConfig: _implicit,
    MLPConfig: _mlp,
    CNNConfig: _cnn,
    RNNConfig: _rnn,
    GRUConfig: _recurrent_baseline,
    LSTMConfig: _recurrent_baseline,
    AttentionConfig: _attention,
    GPTConfig: _gpt,
}


def build_model(config: ModelConfig, dataset: Dataset) -> nn.Module:
    """The model for a data set, on the CPU, its weights drawn from torch's generator.

    Raises: InputError where the model refuses its settings, or its weights do not fit in memory.
    """
    _check_memory(config, dataset)
    try:
        return MODELS[type(config)](config, dataset)
    except ValueError as error:
        raise InputError(f"model={config.name}: {error}") from error


# The sizes of a model, of which the largest is what to lower where it takes too much memory.
_SIZES = (
    *("hidden_dim", "hidden_dims", "implicit_hidden_dim"),
    *("n_embd", "channels", "n_layer", "num_layers"),
)
_LARGE = 2000  # the largest size that is taken without asking


def _check_memory(config: ModelConfig, dataset: Dataset) -> None:
    """Refuse weights that are larger than the memory that is free, before any is allocated.

    A system that promises more memory than it has would end the process later, without a word.
    """
    sizes = {name: getattr(config, name) for name in _SIZES if hasattr(config, name)}
    largest = {name: max(size) if isinstance(size, tuple) else size for name, size in sizes.items()}
    if not largest or max(largest.values()) <= _LARGE:
        return
    name = max(largest, key=lambda name: largest[name])
    needed = _bytes_of_weights(config, dataset)
    free = available_bytes(torch.device("cpu"))
    if needed is None or (free is not None and needed > free):
        shown = str(list(sizes[name]) if isinstance(sizes[name], tuple) else sizes[name])
        amount = "more than can be counted" if needed is None else f"{needed / 2**30:.1f} GiB"
        there = "" if free is None else f", and {free / 2**30:.1f} GiB are free"
        raise InputError(
            f"model.{name}={shown.replace(' ', '')}: its weights take {amount}{there}; lower it"
        )


def _bytes_of_weights(config: ModelConfig, dataset: Dataset) -> int | None:
    """Bytes of a model's parameters and buffers; None where there are too many to count."""
    for layers in ("n_layer", "num_layers"):
        count = getattr(config, layers, 0)
        if count > 2:  # each layer takes what the second one does
            few = [
                dataclasses.replace(config, **{layers: number})  # type: ignore[arg-type]
                for number in (1, 2)
            ]
            one, two = (_bytes_of_weights(each, dataset) for each in few)
            return None if one is None or two is None else one + (count - 1) * (two - one)
    state = torch.get_rng_state()
    try:
        with torch.device("meta"):
            model = MODELS[type(config)](config, dataset)
    except ValueError as error:
        raise InputError(f"model={config.name}: {error}") from error
    except RuntimeError as error:
        if "overflow" in str(error):
            return None
        raise
    finally:
        torch.set_rng_state(state)
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _features(dataset: Dataset) -> int:
    """Features of a time step. Raises: ValueError where a sample is no sequence."""
    if len(dataset.input_shape) != 2:
        raise ValueError(
            f"a sample of data={dataset.name} has the shape {dataset.input_shape}, which is no "
            "sequence: it must be (time, features)"
        )
    return dataset.input_shape[1]


def try_once(model: nn.Module, dataset: Dataset) -> None:
    """Solve for one sample. Raises: InputError where the chosen kernel cannot."""
    inputs, _ = dataset.train.batch(torch.zeros(1, dtype=torch.long, device=dataset.train.x.device))
    try:
        with torch.no_grad():
            model(inputs)
    except ValueError as error:
        raise InputError(f"model.{error}") from error


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
