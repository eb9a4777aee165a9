"""Waiting for other processes for as long as they work, and no longer than they live.

A collective of torch.distributed gives the others a fixed time, whatever they do. Where one may
have hours of work while another has none left, each shows through the group's store that it is
alive, and whoever waits looks there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch.distributed as dist

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = (0.01, 0.25)  # first and longest pause between two looks
_LEFT_SECONDS = 2.0  # for one that was stopped by a signal to all: ours may be on its way
_meetings = itertools.count()


class PeerLost(RuntimeError):
    """Another process has failed, or shows no sign of life."""


class Peers:
    """This process among others that share a store; it shows that it is alive while entered.

    Args:
        store: shared by all of them.
        rank, count: of this process, and of them all.
        name: the same on all, and no other meeting's.
        timeout: seconds without a sign of life after which another counts as dead.
    """

    def __init__(self, store: dist.Store, rank: int, count: int, name: str, timeout: float) -> None:
        self.rank, self.count, self.timeout = rank, count, timeout
        self._store: Any = store  # `check` is not in the stubs of every torch
        self._name = name
        self._ended, self._writing = threading.Event(), threading.Lock()
        self._shown: dict[str, Any] = {"beat": 0, "done": False, "said": None, "left": None}
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @classmethod
    def of_group(cls, timeout: float) -> Peers:
        """Of the default group, whose processes must all call it, in the same order."""
        store = dist.distributed_c10d._get_default_store()
        name = f"idl.peers.{next(_meetings)}"
        return cls(store, dist.get_rank(), dist.get_world_size(), name, timeout)

    def __enter__(self) -> Peers:
        self._show()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is not None and not self._shown["done"]:
            with contextlib.suppress(dist.DistError):
                self._show(left=f"{type(error).__name__}: {error}")

    def say(self, what: Any) -> None:
        """Let the others hear something, in place of what was said before: what JSON can hold."""
        self._shown["said"] = what

    def heard(self) -> list[Any]:
        """What each process, by rank, has said last; None where it has said nothing."""
        seen = [self._shown if r == self.rank else self._look(r) for r in range(self.count)]
        return [shown and shown["said"] for shown in seen]

    def done(self) -> None:
        """Those who wait for this process may go on."""
        self._show(done=True)

    def wait(self, ranks: Iterable[int], on_wait: Callable[[], None] | None = None) -> None:
        """Wait until each of `ranks` is done.

        Args:
            on_wait: called now and then; what it raises ends the waiting.

        Raises:
            PeerLost: one of them failed, or showed no sign of life for `timeout` seconds.
        """
        pause, longest = _LOOK_SECONDS
        for rank in ranks:
            # Counted, not read off a clock: this process may have been stopped as well.
            beat, silent = -1, 0.0
            while not (shown := self._look(rank)) or not shown["done"]:
                if on_wait is not None:
                    on_wait()
                if shown and shown["beat"] != beat:
                    beat, silent = shown["beat"], 0.0
                elif shown and shown["left"] and silent > _LEFT_SECONDS:
                    raise PeerLost(f"rank {rank} of {self.count} has failed: {shown['left']}")
                elif silent > self.timeout:
                    raise PeerLost(
                        f"rank {rank} of {self.count} has shown no sign of life for "
                        f"{self.timeout:g} s (timeout)"
                    )
                time.sleep(pause)
                silent += pause
                pause = min(1.5 * pause, longest)

    def _beat(self) -> None:
        # Where the store is gone, so is its process: who waits is told by `_look`.
        with contextlib.suppress(dist.DistError):
            while not self._ended.wait(min(_BEAT_SECONDS, self.timeout / 4)):
                self._show()

    def _show(self, **news: Any) -> None:
        with self._writing:
            self._shown |= {"beat": self._shown["beat"] + 1, **news}
            self._store.set(f"{self._name}.{self.rank}", json.dumps(self._shown))

    def _look(self, rank: int) -> dict[str, Any] | None:
        key = f"{self._name}.{rank}"
        try:
            # Asked first: `get` waits for a key that is not there.
            found: bytes | None = self._store.get(key) if self._store.check([key]) else None
        except dist.DistError as error:
            raise PeerLost("the process that keeps the group's store is gone") from error
        return None if found is None else json.loads(found)
