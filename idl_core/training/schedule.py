"""Learning-rate schedules: pure functions of the step, so that resuming has nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable

# finished steps -> what the base learning rate is multiplied by for the next step
Schedule = Callable[[int], float]


def constant(warmup_steps: int = 0) -> Schedule:
    """1 throughout, after a linear rise over `warmup_steps`."""
    return lambda step: _warmup(step, warmup_steps)


def cosine(total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> Schedule:
    """Half a cosine from 1 down to `final` at `total_steps`, after a linear rise.

    Source: Loshchilov & Hutter, "SGDR", ICLR 2017, equation (5), one cycle.
    """
    falling = max(1, total_steps - warmup_steps)

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warmup_steps) / falling)
        return _warmup(step, warmup_steps) * (
            final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
        )

    return factor


def step_decay(every: int, gamma: float, warmup_steps: int = 0) -> Schedule:
    """Multiplied by `gamma` after each `every` steps, after a linear rise over `warmup_steps`."""
    return lambda step: _warmup(step, warmup_steps) * gamma ** (step // every)


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))
