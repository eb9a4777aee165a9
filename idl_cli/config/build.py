"""From the typed configuration to the objects it names: the one registry of models and the rest.

Every option of a group is a class of schema.py; here each has the function that builds it. What is
built can therefore only be what stands here, whoever wrote the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from idl_cli.config import schema, sequence_options
from idl_cli.config.implicit_options import ImplicitOptions
from idl_cli.config.uncompiled import uncompiled
from idl_cli.errors import InputError, close_match
from idl_core import functions
from idl_core.models import CNN, GPT, GRU, LSTM, MLP, ImplicitGPT, ImplicitModel, ImplicitRNN
from idl_core.training import (
    TASKS,
    Language,
    Regression,
    Schedule,
    Settings,
    Task,
    constant,
    cosine,
    step_decay,
)
from idl_datasets import Dataset, DatasetError, TextDataset, Tokenizer, load

_WELLPOSED = {
    "inf": functions.ImplicitFunctionInf,
    "triu": functions.ImplicitFunctionTriu,
    "none": functions.ImplicitFunction,
}


def _equilibrium(config: ImplicitOptions) -> dict[str, Any]:
    """What an equilibrium is told, whichever model it is part of."""
    return {
        "f": _WELLPOSED[config.wellposed],
        "no_D": config.no_D,
        "bias": config.bias,
        "mitr": config.mitr,
        "grad_mitr": config.grad_mitr,
        "tol": config.tol,
        "grad_tol": config.grad_tol,
        "kappa": config.kappa,
        "is_low_rank": config.is_low_rank,
        "rank": config.rank,
        "activation": config.activation,
        "projection": config.projection,
        "kernel": config.kernel,
    }


def _implicit(config: schema.ImplicitConfig, dataset: Dataset) -> nn.Module:
    return ImplicitModel(
        math.prod(dataset.input_shape),
        dataset.output_dim,
        config.hidden_dim,
        **_equilibrium(config),
    )


def _mlp(config: schema.MLPConfig, dataset: Dataset) -> nn.Module:
    return MLP(
        math.prod(dataset.input_shape),
        dataset.output_dim,
        config.hidden_dims,
        config.activation,
        bias=config.bias,
    )


def _cnn(config: schema.CNNConfig, dataset: Dataset) -> nn.Module:
    return CNN(
        dataset.input_shape,
        dataset.output_dim,
        config.channels,
        config.kernel_size,
        config.activation,
        bias=config.bias,
    )


def _rnn(config: sequence_options.RNNConfig, dataset: Dataset) -> nn.Module:
    return ImplicitRNN(
        _features(dataset),
        dataset.output_dim,
        config.implicit_hidden_dim,
        config.hidden_dim,
        differences=config.differences,
        **_equilibrium(config),
    )


def _recurrent_baseline(
    config: sequence_options.GRUConfig | sequence_options.LSTMConfig, dataset: Dataset
) -> nn.Module:
    kind = GRU if config.name == "gru" else LSTM
    return kind(
        _features(dataset),
        dataset.output_dim,
        config.hidden_dim,
        config.num_layers,
        differences=config.differences,
    )


def _attention(config: sequence_options.AttentionConfig, dataset: Dataset) -> nn.Module:
    return ImplicitGPT(
        dataset.output_dim,
        config.n_embd,
        dataset.input_shape[0],
        config.n_layer,
        config.n_head,
        config.dropout,
        config.fixed_point_iter,
        config.attention_version,
        config.is_low_rank,
        config.rank,
        tol=config.tol,
        mitr=config.mitr,
    )


def _gpt(config: sequence_options.GPTConfig, dataset: Dataset) -> nn.Module:
    return GPT(
        dataset.output_dim,
        config.n_embd,
        dataset.input_shape[0],
        config.n_layer,
        config.n_head,
        config.dropout,
    )


MODELS: dict[type, Callable[[Any, Dataset], nn.Module]] = {
    schema.ImplicitConfig: _implicit,
    schema.MLPConfig: _mlp,
    schema.CNNConfig: _cnn,
    sequence_options.RNNConfig: _rnn,
    sequence_options.GRUConfig: _recurrent_baseline,
    sequence_options.LSTMConfig: _recurrent_baseline,
    sequence_options.AttentionConfig: _attention,
    sequence_options.GPTConfig: _gpt,
}


def build_model(config: schema.ModelConfig, dataset: Dataset) -> nn.Module:
    """The model for a data set, on the CPU, its weights drawn from torch's generator.

    Raises: InputError where the model refuses its settings.
    """
    try:
        return MODELS[type(config)](config, dataset)
    except ValueError as error:
        raise InputError(f"model={config.name}: {error}") from error


def _features(dataset: Dataset) -> int:
    """Features of a time step. Raises: ValueError where a sample is no sequence."""
    if len(dataset.input_shape) != 2:
        raise ValueError(
            f"a sample of data={dataset.name} has the shape {dataset.input_shape}, which is no "
            "sequence: it must be (time, features)"
        )
    return dataset.input_shape[1]


def build_dataset(
    config: schema.AnyDataConfig,
    seed: int,
    progress: Callable[[str, int, int | None], None],
    tokenizer: Tokenizer | None = None,
) -> Dataset:
    """The data set on the CPU. Raises: InputError where it is absent, damaged or unknown.

    Args:
        tokenizer: of the run that the data are for; None: made for the text.
    """
    options = {name: value for name, value in schema.as_plain(config).items() if value is not None}
    if tokenizer is not None:
        options["tokenizer"] = tokenizer
    try:
        return load(seed=seed, progress=progress, **options)
    except DatasetError as error:
        raise InputError(str(error)) from error


def build_optimizer(
    config: schema.OptimizerConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer, in torch's fused form: for models this small the step itself costs time."""
    match config:
        case schema.SGDConfig():
            return uncompiled(torch.optim.SGD)(
                parameters,
                lr=config.lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case schema.AdamConfig() | schema.AdamWConfig():
            kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
            return uncompiled(kind)(
                parameters,
                lr=config.lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                fused=True,
            )


def build_schedule(
    config: schema.SchedulerConfig, total_steps: int, steps_per_epoch: int
) -> Schedule:
    """The factor on the learning rate, step by step."""
    match config:
        case schema.CosineConfig():
            return cosine(total_steps, config.warmup_steps, config.final)
        case schema.StepConfig():
            every = config.every_epochs * steps_per_epoch
            return step_decay(every, config.gamma, config.warmup_steps)
        case schema.ConstantConfig():
            return constant(config.warmup_steps)


def build_task(dataset: Dataset, monitor: str = "loss") -> Task:
    """The task of a data set, on its device.

    Raises: InputError where `monitor` is none of its figures.
    """
    task = TASKS[dataset.task]
    if dataset.task == "regression":  # figures in the data's own units
        task = Regression(dataset.normalisation.center, dataset.normalisation.scale)
    if isinstance(dataset, TextDataset):
        task = Language(dataset.chars_per_token)
    if monitor not in task.metric_names:
        raise InputError(
            f"trainer.monitor={monitor}: {dataset.name} has {', '.join(task.metric_names)}."
            f"{close_match(monitor, task.metric_names)}"
        )
    return task


def build_settings(config: schema.TrainerConfig, seed: int) -> Settings:
    """The trainer's group as what `fit` takes."""
    return Settings(
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        max_epochs=config.max_epochs,
        max_steps=config.max_steps,
        eval_every=config.eval_every,
        log_every=config.log_every,
        checkpoint_seconds=config.checkpoint_seconds,
        grad_clip=config.grad_clip,
        precision=config.precision,
        cuda_graph=config.cuda_graph,
        monitor=config.monitor,
        patience=config.patience,
        seed=seed,
    )


def choose_device(name: str, key: str = "trainer.device") -> torch.device:
    """The device that a name stands for. Raises: InputError where there is no such device."""
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = f"there are {count} (cuda:0 on)" if count else "torch finds no GPU here"
        raise InputError(f"{key}={name}: {there}; auto takes what there is")
    return device


def try_once(model: nn.Module, dataset: Dataset) -> None:
    """Solve for one sample. Raises: InputError where the kernel that was asked for cannot."""
    inputs, _ = dataset.train.batch(torch.zeros(1, dtype=torch.long, device=dataset.train.x.device))
    try:
        with torch.no_grad():
            model(inputs)
    except ValueError as error:
        raise InputError(f"model.{error}") from error


def device_name(device: torch.device) -> str:
    """The device for a record: 'cpu', or 'cuda: <its name>'."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return str(device)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
