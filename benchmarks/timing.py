"""Paired timing: the contenders take turns, so that what else the machine does hits them alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import torch


def paired_medians(
    contenders: Sequence[Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    before: Callable[[], object] = lambda: None,
) -> list[float]:
    """Median seconds of one call of each contender, over `repeats` rounds A B A B … .

    before: called before each, outside of the clock.
    """
    for _ in range(warmup):
        for contender in contenders:
            before()
            contender()
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(repeats):
        for contender, own in zip(contenders, times, strict=True):
            before()
            start = time.perf_counter()
            contender()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def repeats_for(contender: Callable[[], object], seconds: float, least: int, most: int) -> int:
    """How many calls of `contender` take about `seconds`, within least..most."""
    contender()
    start = time.perf_counter()
    contender()
    one = time.perf_counter() - start
    return max(least, min(most, int(seconds / one)))


def conditions(*peers: str) -> str:
    """One line: versions and threads that the figures were taken with."""
    versions = [f"{peer} {version(peer)}" for peer in ("torch", *peers)]
    threads = torch.get_num_threads()
    return f"{', '.join(versions)}; {threads} torch threads; Python {platform.python_version()}"
