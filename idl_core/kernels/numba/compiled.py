"""The decorator of what numba compiles here, and where that is kept on disk.

numba's own cache looks at a function's file alone, so that a changed function in another file,
which was compiled into it, would go unnoticed; and of two processes that compile at once, one may
leave an index that takes the code of one type for that of another.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` without Python's lock, with numba's options; kept for the next process."""

    def compile_when_called(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, **options)(function)
        dispatcher._cache = _Cache(function)
        return dispatcher

    return compile_when_called


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, _sources())


class _CacheFile(IndexDataCacheFile):
    """An index and the code it names, read and written by one process at a time."""

    def load(self, key: Any) -> Any:
        with self._alone():
            return super().load(key)

    def save(self, key: Any, data: Any) -> None:
        with self._alone():
            super().save(key, data)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks, another user's file
                path = Path(self._cache_path) / "idl_compiled.lock"
                fcntl.flock(stack.enter_context(open(path, "a")), fcntl.LOCK_EX)
            yield


@cache
def _sources() -> str:
    """A digest of all that may have been compiled into a function of this folder."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
