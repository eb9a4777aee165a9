"""From the options of optimizer, scheduler and trainer to the objects that `fit` takes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from inspect import unwrap
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from idl_cli.config.training_options import (
    AdamConfig,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    OptimizerConfig,
    SchedulerConfig,
    SGDConfig,
    StepConfig,
    TrainerConfig,
)
from idl_core.training import Schedule, Settings, constant, cosine, step_decay


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer, in torch's fused form: a small model's step takes little more."""
    match config:
        case SGDConfig():
            return uncompiled(torch.optim.SGD)(
                parameters,
                lr=config.lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case AdamConfig() | AdamWConfig():
            kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
            return uncompiled(kind)(
                parameters,
                lr=config.lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                fused=True,
            )


def build_schedule(config: SchedulerConfig, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The factor on the learning rate as a function of the step."""
    match config:
        case CosineConfig():
            return cosine(total_steps, config.warmup_steps, config.final)
        case StepConfig():
            every = config.every_epochs * steps_per_epoch
            return step_decay(every, config.gamma, config.warmup_steps)
        case ConstantConfig():
            return constant(config.warmup_steps)


def build_settings(config: TrainerConfig, seed: int) -> Settings:
    """The settings of `fit`."""
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


_NOT_TO_BE_COMPILED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


@cache
def uncompiled(kind: type[Optimizer]) -> Any:
    """The same optimizer, to the last bit, that does not load torch._dynamo.

    torch's own loads it to keep the methods above out of compiled graphs: two seconds at the start
    of every training, a third of what a small one takes. A torch that wraps them in another way,
    not undone here, loads it as before.
    """
    step = unwrap(kind.step)
    methods = {name: unwrap(getattr(kind, name)) for name in _NOT_TO_BE_COMPILED}

    @torch.no_grad()
    def step_without_gradients(self: Optimizer, closure: Any = None) -> Any:
        return step(self, closure)

    return type(kind.__name__, (kind,), methods | {"step": step_without_gradients})
