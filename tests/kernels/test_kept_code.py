"""What numba compiles runs where it cannot be kept on disk too, and that is said once."""

from __future__ import annotations

import errno
import importlib.util
import types
import warnings
from pathlib import Path

import pytest

pytest.importorskip("numba")

import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile

from idl_core.kernels.numba.programs import compiled


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module in a folder of its own, with a function that is not yet compiled."""
    (tmp_path / "fresh.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    compiled._warn_not_kept.cache_clear()
    spec = importlib.util.spec_from_file_location("fresh", tmp_path / "fresh.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("part", ["_save_index", "_save_data"])
def test_a_full_disk(
    part: str, fresh: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IndexDataCacheFile, part, no_space)
    twice = compiled.compiled()(fresh.twice)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert twice(np.float64(2)) == 4
        assert twice(np.int64(3)) == 6
    assert len(said) == 1
    assert "No space left on device" in str(said[0].message)
    # An index without its file would give the next process the code of another.
    assert not list(tmp_path.rglob("*.nbi"))


def test_no_folder_that_can_be_written(
    fresh: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> None:
        raise RuntimeError("cannot cache function 'twice': no locator available")

    monkeypatch.setattr(FunctionCache, "__init__", nowhere)
    with pytest.warns(RuntimeWarning, match=r"no locator available.*NUMBA_CACHE_DIR"):
        twice = compiled.compiled()(fresh.twice)
    assert twice(np.float64(2)) == 4


@pytest.mark.parametrize("text", [b"", b"\x80"])
def test_an_index_that_was_cut_short(fresh: types.ModuleType, tmp_path: Path, text: bytes) -> None:
    assert compiled.compiled()(fresh.twice)(np.float64(2)) == 4
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(text)
    assert compiled.compiled()(fresh.twice)(np.float64(2)) == 4
