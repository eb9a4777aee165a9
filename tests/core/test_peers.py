"""Waiting for others: as long as they work, and no longer than they live."""

from __future__ import annotations

import threading
import time

import pytest
import torch.distributed as dist

from idl_core.peers import Peers, PeerSilent


def pair(timeout: float) -> tuple[Peers, Peers]:
    store = dist.HashStore()
    return Peers(store, 0, 2, "here", timeout), Peers(store, 1, 2, "here", timeout)


def test_one_that_works_is_waited_for_longer_than_the_timeout() -> None:
    first, second = pair(0.5)
    looks = list[float]()

    def work() -> None:
        with second:
            second.say([7])
            time.sleep(1.5)
            second.done()

    with first:
        thread = threading.Thread(target=work)
        thread.start()
        first.wait([1], lambda: looks.append(time.monotonic()))
        assert first.heard() == [None, [7]]
        thread.join()
    assert looks[-1] - looks[0] > 0.5


def test_one_that_dies_is_named() -> None:
    first, second = pair(0.3)
    with first:
        with pytest.raises(PeerSilent, match=r"rank 1 of 2 .* for 0\.3 s"):
            first.wait([1])
        with second:
            pass  # dies without having been done
        with pytest.raises(PeerSilent, match="rank 1 of 2"):
            first.wait([1])


def test_waiting_ends_where_one_is_asked_to_stop() -> None:
    first, _ = pair(60)

    def stop() -> None:
        raise InterruptedError

    with first, pytest.raises(InterruptedError):
        first.wait([1], stop)
