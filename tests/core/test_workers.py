"""Which of several workers that failed is to blame."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from idl_core.workers import WorkerFailed, run_workers


@pytest.mark.parametrize(
    ("codes", "to_blame"),
    [
        ({0: -signal.SIGTERM, 1: 1}, 1),  # the launcher ended rank 0 because of rank 1
        ({0: -signal.SIGTERM, 1: 1, 2: -signal.SIGKILL}, 2),  # rank 1 lost its peer
        ({1: -signal.SIGTERM}, 1),
    ],
)
def test_not_one_that_was_only_ended_with_it(
    codes: dict[int, int], to_blame: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    failures = {
        rank: SimpleNamespace(exitcode=code, message="", signal_name=lambda: "a signal")
        for rank, code in codes.items()
    }

    def launch(*_: object) -> None:
        error = ChildFailedError.__new__(ChildFailedError)
        error.failures = failures
        raise error

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", lambda *_: launch)
    with pytest.raises(WorkerFailed, match=f"rank {to_blame} of 3 failed"):
        run_workers("nothing", "", 3, tmp_path)
