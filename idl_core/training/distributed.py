"""Training by several processes: each has the whole model and takes its share of every batch.

All of them walk through the same steps: the order of the samples, the metrics and every decision
(which weights are best, when to save, when to stop) are the same on each, so that only the
gradients, and the sums behind the metrics, need to be put together. What a step learns from is the
mean over the whole batch, whatever the number of processes: n of them train as one does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


class Team:
    """A process that trains on its own: its share is everything. `Group` is a team of several."""

    rank = 0
    count = 1

    def start(self, model: nn.Module) -> None:
        """Before the first step: all begin with the same weights."""

    def share(self, index: Tensor) -> Tensor:
        """This process's part of the samples numbered in `index`: no other has any of them."""
        return index

    def synchronise(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, weight: float, stopping: bool
    ) -> tuple[Tensor, bool]:
        """Turn each process's gradients into those of the whole batch.

        Args:
            loss: mean over this process's share, which is `weight` of the batch.
            stopping: this process was asked to stop.

        Returns: the mean loss over the batch, and whether any process was asked to stop.
        """
        return loss, stopping

    def total(self, sums: Tensor | None) -> Tensor:
        """The sum over all processes; None counts as nothing, but not on all of them."""
        assert sums is not None
        return sums

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        return [value]

    def first(self, value: T) -> T:
        """The value of rank 0, where one must decide for all."""
        return value


class Group(Team):
    """The processes of torch.distributed's default group.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self._device = device

    def start(self, model: nn.Module) -> None:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
        if self.rank:  # dropout must not drop the same on every share
            torch.manual_seed(torch.initial_seed() + self.rank)

    def share(self, index: Tensor) -> Tensor:
        return index.tensor_split(self.count)[self.rank]

    def synchronise(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, weight: float, stopping: bool
    ) -> tuple[Tensor, bool]:
        told = torch.stack((loss.detach() * weight, loss.new_tensor(float(stopping))))
        # One message carries it all: for small models it is its latency that costs.
        by_type: dict[torch.dtype, list[Tensor]] = {told.dtype: []}
        for parameter in parameters:
            if parameter.grad is not None:
                by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for dtype, gradients in by_type.items():
            parts = [gradient.reshape(-1) * weight for gradient in gradients]
            parts += [told] if dtype == told.dtype else []
            flat = torch.cat(parts)
            dist.all_reduce(flat)
            summed = flat.split([len(part) for part in parts])
            for gradient, part in zip(gradients, summed, strict=False):
                gradient.copy_(part.view_as(gradient))
            told = summed[-1] if dtype == told.dtype else told
        mean, asked = told.tolist()  # on a GPU this waits for it, as the solver did before
        return torch.tensor(mean, dtype=told.dtype), asked > 0

    def total(self, sums: Tensor | None) -> Tensor:
        parts = self.gather(None if sums is None else sums.cpu())
        # In the order of the ranks, on every rank: the same metrics to the last bit.
        whole = sum(part for part in parts if part is not None)
        assert isinstance(whole, Tensor)
        return whole.to(self._device)

    def gather(self, value: T) -> list[T]:
        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def first(self, value: T) -> T:
        values = [value]
        dist.broadcast_object_list(values, 0, device=self._device)
        return values[0]
