"""Warnings of solves on a GPU, without one: streams and events are stood in for."""

from __future__ import annotations

import threading
import time
import warnings
from contextlib import contextmanager

import pytest
import torch

from idl_core import ImplicitFunctionWarning, ImplicitModel
from idl_core.equilibrium import (
    CapturedSolves,
    Solution,
    SolveStats,
    captured_solves,
    flush_warnings,
    late_warnings,
)
from idl_core.equilibrium.solution import LastSolution

SECOND = torch.device("cuda", 1)


class OnSecond(torch.Tensor):
    """Numbers on a GPU that is not the current one."""

    is_cuda = True
    device = SECOND


class Arrived:
    """An event that has happened; to ask it lets other threads run, as asking a GPU does."""

    def query(self) -> bool:
        time.sleep(0)
        return True

    def synchronize(self) -> None:
        pass


NUMBERS = torch.tensor([[1.0], [3e-6], [300.0]])  # residual, bound and iterations: it has failed


def test_the_stream_is_of_the_device_that_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is not the current one where a model is on another: its numbers come later."""
    current, asked = [torch.device("cuda", 0)], []

    @contextmanager
    def on(device: torch.device):
        current.append(device)
        yield
        current.pop()

    class Event(Arrived):
        def record(self) -> None:
            asked.append(("record", current[-1]))

    def capturing() -> bool:
        asked.append(("capturing", current[-1]))
        return False

    empty, stack = torch.empty, torch.stack
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory: empty(shape))
    monkeypatch.setattr(torch, "stack", lambda rows: stack(rows).as_subclass(OnSecond))
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", capturing)
    stats = SolveStats(*NUMBERS.as_subclass(OnSecond).unbind())
    Solution(empty(0), stats, 3e-6).warn_unless_converged("the solve")
    assert asked == [("capturing", SECOND), ("record", SECOND)]
    assert current == [torch.device("cuda", 0)]
    with pytest.warns(ImplicitFunctionWarning, match="the solve did not converge for 1 of 1"):
        flush_warnings()


def test_threads_say_each_warning_once() -> None:
    """Forward solves are told by the main thread and adjoints by autograd's, at the same time."""
    of_each, threads, raised = 100, 4, []

    def work(own: int) -> None:
        try:
            for number in range(of_each):
                what = f"solve {own} {number},"
                solved = Solution(NUMBERS, SolveStats(*NUMBERS), 3e-6)
                late = late_warnings._Pending(
                    Arrived(), NUMBERS, lambda _, s=solved, w=what: s.warn_now(w)
                )
                with late_warnings._lock:
                    late_warnings._pending.append(late)
                flush_warnings(wait=False)
        except Exception as error:
            raised.append(error)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        workers = [threading.Thread(target=work, args=(own,)) for own in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        flush_warnings()
    assert not raised
    names = [str(one.message).split(",")[0] for one in said]
    assert sorted(names) == sorted(
        f"solve {own} {number}" for own in range(threads) for number in range(of_each)
    )


def test_solves_of_a_graph_are_looked_at_after_each_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two steps in a graph the worst of each sample; what ran while it was made is not."""
    looked_at: list[tuple[list[list[float]], str]] = []

    def look(numbers: torch.Tensor, warn: str) -> None:
        looked_at.append((numbers.tolist(), warn))

    monkeypatch.setattr(captured_solves, "warn_when_copied", look)
    model = ImplicitModel(2, 1, 3)
    solves, in_graph = CapturedSolves(model), LastSolution()
    # Residual, bound and iterations of two samples, in each of two steps.
    forward = torch.tensor([[[1.0, 5.0], [2.0, 2.0], [3, 9]], [[0.5, 1.0], [2.0, 2.0], [4, 8]]])
    adjoint = torch.tensor([[[0.0, 1.0], [2.0, 2.0], [7, 7]], [[4.0, 0.5], [3.0, 2.0], [6, 6]]])
    with solves.collected():
        for step in range(2):
            late_warnings.warn_when_copied(forward[step], "forward")
            late_warnings.warn_when_copied(adjoint[step], "adjoint")
        model.last_solution = in_graph
        solves.worst(2)
    assert not looked_at
    model.last_solution = LastSolution()  # of a step outside
    for _ in range(2):
        looked_at.clear()
        solves.after_replay()
        assert model.last_solution is in_graph
        assert looked_at == [
            ([[1.0, 5.0], [2.0, 2.0], [4.0, 9.0]], "forward"),
            ([[4.0, 1.0], [3.0, 2.0], [7.0, 7.0]], "adjoint"),
        ]
