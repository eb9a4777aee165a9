"""Which devices a training runs on: one in this process, or several with a worker each."""

from __future__ import annotations

import os

import torch

from idl_cli.config.training_options import TrainerConfig
from idl_cli.errors import InputError


def choose_devices(trainer: TrainerConfig) -> list[torch.device]:
    """The devices that `trainer.device` and `trainer.devices` stand for.

    On CPUs a "device" is a worker process: any number that the machine can bear. `auto` is every
    GPU, or one process on the CPU.

    Raises: InputError where there are not so many, or not what `trainer.cuda_graph` needs.
    """
    devices = _devices(trainer)
    if trainer.cuda_graph == "on" and (len(devices) > 1 or devices[0].type != "cuda"):
        raise InputError(
            f"trainer.cuda_graph=on: CUDA graphs are of training on one GPU, and this is on "
            f"{devices_name(devices)}; auto captures where it can"
        )
    return devices


def _devices(trainer: TrainerConfig) -> list[torch.device]:
    name = trainer.device_name
    if trainer.accelerator == "gpu" and trainer.device == "auto" and not torch.cuda.device_count():
        raise InputError(
            "trainer.accelerator=gpu: torch finds no GPU here; auto takes what there is"
        )
    first = choose_device(name)
    if first.type == "cpu":
        count = 1 if trainer.devices == "auto" else int(trainer.devices)
        most = max(8, os.cpu_count() or 1)
        if count > most:
            raise InputError(
                f"trainer.devices={count}: at most {most} workers on this machine's CPUs"
            )
        return [first] * count
    if ":" in name:
        if trainer.devices not in ("1", "auto"):
            raise InputError(
                f"trainer.devices={trainer.devices}: trainer.device={name} is one device; "
                "choose trainer.device=cuda for several"
            )
        return [first]
    there = torch.cuda.device_count()
    count = there if trainer.devices == "auto" else int(trainer.devices)
    if count > there:
        raise InputError(
            f"trainer.devices={count}: torch finds {there} GPU{'s' * (there != 1)} here; "
            "auto takes all there are"
        )
    return [torch.device("cuda", number) for number in range(count)] if count > 1 else [first]


def devices_name(devices: list[torch.device]) -> str:
    """The devices as summary.json names them: 'cpu', '2 x cpu', 'cuda: <its name>'."""
    name = device_name(devices[0])
    return name if len(devices) == 1 else f"{len(devices)} x {name.replace(':0', '', 1)}"


def workers_note(devices: list[torch.device]) -> str | None:
    """What several devices are where there is no GPU for them; None where that is as typed."""
    if len(devices) == 1 or devices[0].type != "cpu":
        return None
    return f"trainer.devices={len(devices)}: on the CPU, as processes that share {_cores()} cores"


def threads_of_each(count: int) -> int | None:
    """CPU threads for each of so many workers on this machine; None leaves them as they are."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, _cores() // count)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a cluster's job may use, not all there is
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str, key: str = "trainer.device") -> torch.device:
    """The torch device of a name. Raises: InputError where there is no such device."""
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = f"there are {count} (cuda:0 on)" if count else "torch finds no GPU here"
        raise InputError(f"{key}={name}: {there}; auto takes what there is")
    return device


def device_name(device: torch.device) -> str:
    """The device as summary.json names it: 'cpu', or 'cuda: <its name>'."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return str(device)
