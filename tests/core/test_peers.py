"""Waiting for others: as long as they work, and no longer than they live."""

from __future__ import annotations

import threading
import time

import pytest
import torch.distributed as dist

from idl_core.peers import PeerLost, Peers


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
        with pytest.raises(PeerLost, match=r"rank 1 of 2 .* for 0\.3 s"):
            first.wait([1])
        with second:
            pass  # dies without having been done
        with pytest.raises(PeerLost, match="rank 1 of 2"):
            first.wait([1])


def test_one_that_fails_is_told_of_long_before_the_timeout() -> None:
    first, second = pair(3600)
    with first:
        with pytest.raises(ZeroDivisionError), second:
            raise ZeroDivisionError("by zero")
        with pytest.raises(PeerLost, match="rank 1 of 2 has failed: ZeroDivisionError: by zero"):
            first.wait([1])


def test_one_that_fails_when_it_is_done_is_no_concern_of_others() -> None:
    first, second = pair(3600)

    def fail() -> None:
        second.done()
        raise ZeroDivisionError

    with first:
        with pytest.raises(ZeroDivisionError), second:
            fail()
        first.wait([1])


def test_waiting_ends_where_one_is_asked_to_stop() -> None:
    first, _ = pair(60)

    def stop() -> None:
        raise InterruptedError

    with first, pytest.raises(InterruptedError):
        first.wait([1], stop)
