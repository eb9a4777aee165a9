"""From the options of optimizer, scheduler and trainer to the objects that `fit` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class _Rate:
    """usual: the rate of models with up to usual_up_to inputs to each output of a weight."""

    usual: float
    usual_up_to: int


# Measured on MNIST (784 inputs) and pictures of CIFAR-10 (3,072), the implicit model, MLP and CNN:
# 5e-3 has 0.950 and 0.28 (a loss of 4.3), these 0.954 and 0.42; 0.05 of SGD diverges on the latter.
_RATES = {"adam": _Rate(5e-3, 256), "adamw": _Rate(1e-3, 1280), "sgd": _Rate(0.05, 100)}


def with_learning_rate(
    config: OptimizerConfig, model: nn.Module, say: Callable[[str], None]
) -> OptimizerConfig:
    """The optimizer's configuration with a learning rate, chosen for the model where it had none.

    A step of Adam changes each weight by about the rate, whatever its gradient. Where the n inputs
    of a layer go together, as the pixels of a picture do, its outputs change by up to n times that,
    so that the rate is lowered in proportion to n beyond the width that the usual rate is good for
    (the rule of Yang et al., "Tensor Programs V", 2022, for the rates of wide layers).
    """
    if config.lr is not None:
        return config
    rate, widest = _RATES[config.name], _widest(model)
    if widest <= rate.usual_up_to:
        return replace(config, lr=rate.usual)
    lr = float(f"{rate.usual * rate.usual_up_to / widest:.2g}")
    say(
        f"optimizer.lr={lr:g}: the usual {rate.usual:g} is too fast for weights of {widest:,} "
        "inputs; optimizer.lr= chooses another"
    )
    return replace(config, lr=lr)


def _widest(model: nn.Module) -> int:
    """The most inputs that an output of one of the model's weights has."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    return max((p[0].numel() for p in weights), default=1)


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer, in torch's fused form: a small model's step takes little more.

    Its learning rate has been chosen, see `with_learning_rate`.
    """
    assert config.lr is not None
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
