"""The states of a trained network: what its activation modules take and give."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from idl_core.sim.memory import require, states_bytes

# Elementwise, for X = φ(Z) is; softmax, GLU and attention are not.
ACTIVATION_MODULES: tuple[type[nn.Module], ...] = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.RReLU,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)


class NoActivations(ValueError):
    """The network has no activation module to take states from."""


@dataclass(frozen=True)
class Layer:
    """The states of one call of an activation module: rows `start` to `stop` of X and of Z."""

    name: str
    start: int
    stop: int


def activation_modules(model: nn.Module, skip_layers: int | None) -> dict[nn.Module, str]:
    """The activation modules to take states from, with their names.

    With `skip_layers`, walking down from the model: a module with at most that many children is
    entered; of one with more, each child is a block, and only the last activation in it counts.
    """
    names = {module: name or "(the model)" for name, module in model.named_modules()}
    if skip_layers is None:
        return {m: name for m, name in names.items() if isinstance(m, ACTIVATION_MODULES)}
    return {m: names[m] for m in _last_of_blocks(model, skip_layers)}


def _last_of_blocks(module: nn.Module, size: int) -> Iterator[nn.Module]:
    children = list(module.children())
    if isinstance(module, ACTIVATION_MODULES):
        yield module
    elif len(children) <= size:
        for child in children:
            yield from _last_of_blocks(child, size)
    else:
        for child in children:
            inside = [m for m in child.modules() if isinstance(m, ACTIVATION_MODULES)]
            yield from inside[-1:]


class StateRecorder:
    """Collects states batch by batch; the deepest layer, called last, comes first in X and Z.

    Args:
        model: the network, in evaluation mode.
        skip_layers: see `activation_modules`.

    Raises:
        NoActivations: there is nothing to take states from.
    """

    def __init__(self, model: nn.Module, skip_layers: int | None = None) -> None:
        self.model = model
        self.modules = activation_modules(model, skip_layers)
        if not self.modules:
            raise NoActivations(_why_none(model))
        self.calls: list[tuple[str, Tensor, Tensor]] = []
        self.pending: list[Tensor] = []
        self.layers: list[Layer] | None = None
        self.parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in "XUZY"}

    @contextlib.contextmanager
    def _hooked(self) -> Iterator[None]:
        self.calls, self.pending = [], []
        handles = []
        for module, name in self.modules.items():
            handles.append(module.register_forward_pre_hook(self._before))
            handles.append(module.register_forward_hook(self._after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # Copied now: an in-place activation overwrites it.
        self.pending.append(args[0].detach().flatten(1).clone())

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.calls.append((name, self.pending.pop(), output.detach().flatten(1).clone()))

        return hook

    @torch.no_grad()
    def record(self, inputs: Tensor) -> None:
        """Run the network on a batch and keep its states on the CPU."""
        U = inputs.detach().flatten(1).clone()  # a network may change its inputs in place
        with self._hooked():
            outputs = self.model(inputs)
        if not self.calls:
            raise NoActivations(
                f"the network has activation modules ({', '.join(self.modules.values())}), but its "
                "forward pass calls none of them"
            )
        layers, start = [], 0
        for name, _, post in reversed(self.calls):
            layers.append(Layer(name, start, start + post.shape[1]))
            start += post.shape[1]
        if self.layers not in (None, layers):
            raise ValueError("the network's activations differ from batch to batch")
        self.layers = layers
        Z = torch.cat([pre for _, pre, _ in reversed(self.calls)], 1)
        X = torch.cat([post for _, _, post in reversed(self.calls)], 1)
        self.calls = []
        for key, value in (("X", X), ("U", U), ("Z", Z), ("Y", outputs.flatten(1))):
            # NumPy has no bfloat16.
            value = value.float() if value.dtype == torch.bfloat16 else value
            self.parts[key].append(value.cpu().numpy())

    def states(self) -> dict[str, np.ndarray[Any, Any]]:
        """X (n, m), U (p, m), Z (n, m), Y (q, m) of all batches."""
        return {key: np.concatenate(parts).T for key, parts in self.parts.items()}


def record_states(
    model: nn.Module, loader: Iterable[Any], skip_layers: int | None
) -> tuple[dict[str, np.ndarray[Any, Any]], list[Layer]]:
    """States of all inputs that the loader gives, and which layer they are from.

    The network is run in evaluation mode, on the device it is on, and left as it was.

    Raises:
        NoActivations: there is nothing to take states from.
        NotEnoughMemory: told after the first batch, where all will not fit.
        ValueError: the loader is empty.
    """
    recorder = StateRecorder(model, skip_layers)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for index, batch in enumerate(loader):
            recorder.record(inputs_of(batch).to(device))
            if index == 0:
                _refuse_if_too_large(recorder, loader)
    finally:
        for module, was in training.items():
            module.training = was
    if recorder.layers is None:
        raise ValueError("the data loader gives no batches: there are no states to collect")
    return recorder.states(), recorder.layers


def inputs_of(batch: Any) -> Tensor:
    """The inputs of a batch: itself, or the first of a pair (inputs, targets)."""
    inputs: Tensor = batch if isinstance(batch, Tensor) else batch[0]
    return inputs


def _refuse_if_too_large(recorder: StateRecorder, loader: Iterable[Any]) -> None:
    """From the first batch: as many as the loader has, or as its sampler draws, are to come."""
    first = len(recorder.parts["U"][0])
    counts = []
    with contextlib.suppress(TypeError):  # one that does not know
        counts.append(first * len(loader))  # type: ignore[arg-type]
    with contextlib.suppress(TypeError, AttributeError):
        counts.append(len(loader.sampler))  # type: ignore[attr-defined]
    if not counts:
        return
    count = min(counts)
    n, p, q = (recorder.parts[key][0].shape[1] for key in "XUY")
    size = recorder.parts["X"][0].dtype.itemsize
    require(
        states_bytes(n, p, q, count, size),
        torch.device("cpu"),
        f"keeping the states of {count} samples, {2 * n + p + q} numbers each,",
        "use fewer samples, or skip_layers to take fewer layers",
    )


def _why_none(model: nn.Module) -> str:
    """The message of `NoActivations`, which looks for a functional activation in the source."""
    called = ""
    for module in model.modules():
        if type(module).__module__.startswith("torch."):
            continue
        try:
            source = inspect.getsource(type(module).forward)
        except (OSError, TypeError):
            continue
        for name in ("relu", "gelu", "silu", "tanh", "sigmoid", "elu", "softplus"):
            if f".{name}(" in source:
                called = f" ({type(module).__name__}.forward calls {name} as a function)"
    return (
        f"{type(model).__name__} has no activation module to take states from{called}: SIM hooks "
        "modules such as nn.ReLU, so put them in the network in place of calls such as F.relu"
    )
