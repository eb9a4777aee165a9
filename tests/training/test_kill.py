"""`kill -9` at random moments, of real processes: what was saved is whole, and the end is exact."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from idl_core.training import CheckpointFolder

from .conftest import classes
from .test_fit import SETTINGS, assert_same, run, weights

LONG = replace(SETTINGS, max_epochs=60, log_every=1)


def child(work: Callable[[], object]) -> int:
    """Do something in a process of its own. Returns: its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_killed_at_six_random_moments_and_resumed_is_as_never_killed(tmp_path: Path) -> None:
    val = classes(20, 1)
    run(val=val)  # what a first step loads is there, as it will be in the children
    began = time.monotonic()
    whole, whole_result, _ = run(LONG, val=val, folder=tmp_path / "whole")
    seconds = time.monotonic() - began
    chance, steps, met, killed = random.Random(0), [0], {0}, 0
    folder = tmp_path / "killed"
    while killed < 6:
        pid = child(partial(run, LONG, val=val, folder=folder, resume=True))
        time.sleep(chance.uniform(0, seconds / 6))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):  # it was done before: begin again
            assert os.WEXITSTATUS(status) == 0
            folder = tmp_path / f"killed_{killed}"
            steps = [0]
            continue
        killed += 1
        last, _, problems = CheckpointFolder(folder).load()
        assert not problems
        step = last.step if last is not None else 0
        assert isinstance(step, int)
        assert step >= steps[-1]  # nothing that was saved is lost
        steps.append(step)
        met.add(step)
    assert len(met) > 2
    resumed, result, _ = run(LONG, val=val, folder=folder, resume=True)
    assert_same(weights(resumed), weights(whole))
    assert result == whole_result


def test_no_room_for_a_checkpoint_is_survived_and_the_one_before_is_kept(tmp_path: Path) -> None:
    """A limit that the kernel puts on files: the write itself fails, in the middle."""
    steps = iter(range(1, 100))
    run(folder=tmp_path / "run", stop=lambda: next(steps) == 5)
    kept = (tmp_path / "run" / "last.safetensors").read_bytes()
    told = tmp_path / "told"

    def go_on() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        _, result, callback = run(folder=tmp_path / "run", resume=True)
        told.write_text(f"{result.progress.step} {callback.problems[0]}"[:900])

    _, status = os.waitpid(child(go_on), 0)
    assert os.WEXITSTATUS(status) == 0
    assert told.read_text().startswith("20 checkpoint not written: [Errno 27]")
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == kept
    resumed, _, _ = run(folder=tmp_path / "run", resume=True)
    assert_same(weights(resumed), weights(run()[0]))
