"""Wrong input of any kind: exit 2, at most three lines, no traceback, nothing changed on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Idl
from .wrong_inputs import wrong_inputs


@pytest.mark.parametrize("words", wrong_inputs(seed=16, count=40), ids=" ".join)
def test_wrong_input_of_any_kind(idl: Idl, tmp_path: Path, words: list[str]) -> None:
    answer = idl(*words)
    assert answer.code == 2, answer.out
    assert answer.err.startswith("idl: ")
    assert answer.err.count("\n") <= 3, answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_the_seed_is_all_that_is_random() -> None:
    assert wrong_inputs(3, 50) == wrong_inputs(3, 50)
    assert wrong_inputs(3, 50) != wrong_inputs(4, 50)
