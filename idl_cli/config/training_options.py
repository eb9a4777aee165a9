"""The options of the groups optimizer, scheduler, trainer and logger, and of `sweep`.

To add an option of a group: a class here and in the group's union, its builder in
build_training.py, a file in conf/<group>/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from idl_cli.config.bounds import Count, Fraction, Natural, NonNegative, Positive, Range


@dataclass(frozen=True)
class AdamConfig:
    name: Literal["adam"] = "adam"
    lr: Positive | None = None
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0


@dataclass(frozen=True)
class AdamWConfig:
    name: Literal["adamw"] = "adamw"
    lr: Positive | None = None
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.01


@dataclass(frozen=True)
class SGDConfig:
    name: Literal["sgd"] = "sgd"
    lr: Positive | None = None
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0")


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"] = "constant"
    warmup_steps: Natural = 0


@dataclass(frozen=True)
class CosineConfig:
    name: Literal["cosine"] = "cosine"
    warmup_steps: Natural = 0
    final: Annotated[float, Range(0, 1)] = 0.0


@dataclass(frozen=True)
class StepConfig:
    name: Literal["step"] = "step"
    warmup_steps: Natural = 0
    every_epochs: Count = 10
    gamma: Annotated[float, Range(0, 1, open_low=True)] = 0.1


@dataclass(frozen=True)
class TrainerConfig:
    """Duration, batches, precision, devices; see also `idl_core.training.Settings`."""

    max_epochs: Count | None = 20
    max_steps: Count | None = None
    batch_size: Count = 64
    eval_batch_size: Count = 1000
    eval_every: Count | None = None
    log_every: Count = 50
    checkpoint_seconds: NonNegative = 10.0
    grad_clip: Positive | None = None
    precision: Literal["32", "64", "bf16"] = "32"
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    monitor: str = "loss"
    patience: Count | None = None
    device: str = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: str = "1"
    resume: str | None = None

    @property
    def device_name(self) -> str:
        """The device that `device` and `accelerator` name together."""
        if self.accelerator == "auto":
            return self.device
        wanted = "cpu" if self.accelerator == "cpu" else "cuda"
        return self.device if self.device.startswith(wanted) else wanted

    def __post_init__(self) -> None:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs or max_steps is needed: one of them ends the training")
        check_device(self.device)
        if self.device not in ("auto", self.device_name):
            raise ValueError(f"device={self.device}: trainer.accelerator={self.accelerator} is not")
        if self.devices != "auto" and not re.fullmatch(r"[1-9]\d{0,3}", self.devices):
            raise ValueError(f"devices={self.devices}: it must be a whole number from 1, or auto")


@dataclass(frozen=True)
class SweepConfig:
    """The options of a sweep (-m)."""

    resume: str | None = None


@dataclass(frozen=True)
class NoLoggerConfig:
    """Only the run directory."""

    name: Literal["none"] = "none"


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases in addition to the run directory."""

    name: Literal["wandb"] = "wandb"
    mode: Literal["auto", "online", "offline"] = "auto"
    project: str = "idl"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


OptimizerConfig = AdamConfig | AdamWConfig | SGDConfig
SchedulerConfig = ConstantConfig | CosineConfig | StepConfig
LoggerConfig = NoLoggerConfig | WandbConfig


def check_run_name(name: str) -> None:
    """Raise ValueError unless `name` is fit to be part of a folder's name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.,=+@-]{0,99}", name, re.ASCII):
        raise ValueError(
            f"name={' '.join(name.split())[:60]!r}: it names a folder; use letters, digits and "
            "_ . , = + @ - (a letter or digit first, at most 100)"
        )


def check_device(device: str) -> None:
    """Raise ValueError unless `device` is auto, cpu, cuda or cuda:<number>."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device={device}: choose auto, cpu, cuda or cuda:<number>")
