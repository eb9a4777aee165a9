"""The learning rates of an optimizer's groups, step by step."""

from __future__ import annotations

import torch

from idl_core.training.schedule import Schedule


class LearningRates:
    """Each parameter group's own rate, times what the schedule says.

    Args:
        schedule: finished steps -> factor.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._own = [float(group["lr"]) for group in optimizer.param_groups]

    def at(self, step: int) -> list[float]:
        """Of the groups, after `step` finished steps."""
        factor = self._schedule(step)
        return [rate * factor for rate in self._own]

    def use(self, step: int) -> None:
        """Have the optimizer take them in its next step."""
        self._set(self.at(step))

    def reset(self) -> None:
        """Give the optimizer its own rates back."""
        self._set(self._own)

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
